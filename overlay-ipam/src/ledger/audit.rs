//! What there is, read whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use overlay_core::{Commit, Key, UnixTime};

use super::block::Block;
use super::ground::{Ground, Plot};
use super::record::Held;
use super::wire::Flaw;
use super::{Ledger, Seen, Stop, outcome};
use crate::{IpamError, LeaseOwner, Use};

/// Numbers of a ground whose records contradict each other, as an attacker or a damaged store leaves them.
#[derive(Debug, Default)]
pub(crate) struct Contradictions {
    /// Used by no lease: lost.
    pub(crate) lost: Vec<(u8, u128)>,
    /// Leased, but free in their block, or leased twice.
    pub(crate) unbacked: Vec<(LeaseOwner, Held)>,
}

impl Contradictions {
    /// What a block and the leases in it say differently.
    fn judge(
        &mut self,
        (ground, (index, number)): (&Ground, Place),
        block: Option<&Block>,
        leases: Vec<(LeaseOwner, Held)>,
    ) {
        let Some(plot) = ground.plot(index) else { return };
        let used = block.into_iter().flat_map(Block::used).map(|at| plot.join(number, at));
        let mut unleased: BTreeSet<u128> = used.collect();
        self.unbacked.extend(leases.into_iter().filter(|(_, held)| !unleased.remove(&held.number)));
        self.lost.extend(unleased.into_iter().map(|number| (index, number)));
    }
}

/// A block, by its plot and its number there.
type Place = (u8, u128);
type Blocks = BTreeMap<Place, Seen>;

/// How often blocks are looked at that change while their leases are listed.
const LOOKS: usize = 4;

impl Ledger {
    /// All leases of a ground, in the order of their owners.
    pub(crate) async fn leases(&self, ground: &Ground) -> Result<Vec<(LeaseOwner, Held)>, IpamError> {
        let prefix = self.keys.leases(ground);
        let listing = self.store.list(&prefix).await?;
        let mut leases = Vec::with_capacity(listing.entries.len());
        for (key, entry) in listing.entries {
            let corrupt = |flaw| IpamError::Corrupt { key: key.clone(), flaw };
            let owner = key.strip(&prefix).and_then(|owner| LeaseOwner::new(owner).ok());
            let owner = owner.ok_or_else(|| corrupt(Flaw::Field { field: "key" }))?;
            let (_, held) = ground.held(&key, &entry)?;
            leases.push((owner, held));
        }
        Ok(leases)
    }

    /// How many numbers of each plot are used and rest, of how many that can be leased for `purpose`.
    pub(crate) async fn count(
        &self,
        ground: &Ground,
        plot: &Plot,
        purpose: Use,
        now: UnixTime,
    ) -> Result<(u128, u128, u128), IpamError> {
        let blocks = self.blocks(ground, plot).await?;
        let (mut used, mut resting, mut room) = (0, 0, 0_u128);
        for window in plot.windows(purpose) {
            room = room.saturating_add(plot.room(*window));
            let within = blocks.iter().filter(|seen| plot.blocks(*window).contains(&seen.number));
            for Seen { number, block, .. } in within {
                let block = block.by(self.rest, now);
                let (in_use, rests) = block.count(plot.part(*number, *window));
                used += u128::from(in_use);
                resting += u128::from(rests);
            }
        }
        Ok((used, resting, room))
    }

    /// What blocks and leases say differently.
    ///
    /// They are listed one after the other, while claims go on. But a lease changes its block in the same commit: where a block was the
    /// same before and after the leases were listed, these are all that it had. The others are looked at again; one that
    /// always changes is left to the next audit.
    pub(crate) async fn contradictions(&self, ground: &Ground) -> Result<Contradictions, IpamError> {
        let mut found = Contradictions::default();
        let mut judged = BTreeSet::new();
        let mut before = self.all_blocks(ground).await?;
        for _ in 0..LOOKS {
            let mut leases: BTreeMap<Place, Vec<(LeaseOwner, Held)>> = BTreeMap::new();
            for (owner, held) in self.leases(ground).await? {
                let Some(plot) = ground.plot(held.plot) else { continue };
                leases.entry((held.plot, plot.split(held.number).0)).or_default().push((owner, held));
            }
            let after = self.all_blocks(ground).await?;
            let places = before.keys().chain(after.keys()).chain(leases.keys()).copied();
            let open: BTreeSet<Place> = places.filter(|place| !judged.contains(place)).collect();
            let revision = |blocks: &Blocks, place: &Place| blocks.get(place).map(|seen| seen.revision);
            let mut changed = false;
            for place in open {
                if revision(&before, &place) != revision(&after, &place) {
                    changed = true;
                    continue;
                }
                judged.insert(place);
                let leases = leases.remove(&place).unwrap_or_default();
                found.judge((ground, place), after.get(&place).map(|seen| &*seen.block), leases);
            }
            if !changed {
                break;
            }
            before = after;
        }
        Ok(found)
    }

    async fn all_blocks(&self, ground: &Ground) -> Result<Blocks, IpamError> {
        let mut all = BTreeMap::new();
        for plot in &ground.plots {
            let blocks = self.blocks(ground, plot).await?;
            all.extend(blocks.into_iter().map(|seen| ((plot.index, seen.number), seen)));
        }
        Ok(all)
    }

    /// Frees the numbers of a block that no lease has: those of `lost`, if still none has them. Gives how many.
    pub(crate) async fn mend(
        &self,
        ground: &Ground,
        plot: &Plot,
        lost: &[u128],
        now: UnixTime,
    ) -> Result<Option<usize>, IpamError> {
        let Some(number) = lost.first().map(|number| plot.split(*number).0) else { return Ok(Some(0)) };
        let key = self.keys.block(ground, plot.index, number);
        // A lease changes its block in the same commit: while the block stays as it is, no lease of it comes or goes.
        let Some(before) = self.store.get(&key).await? else { return Ok(Some(0)) };
        let leased: Vec<u128> = self
            .leases(ground)
            .await?
            .iter()
            .filter(|(_, held)| held.plot == plot.index)
            .map(|(_, held)| held.number)
            .collect();
        let free: Vec<u128> = lost.iter().copied().filter(|number| !leased.contains(number)).collect();
        self.rewrite(ground, &key, plot.block_size(number), |block, at| {
            if at != before.revision {
                return 0;
            }
            let freed: Vec<u16> = block.used().filter(|at| free.contains(&plot.join(number, *at))).collect();
            freed.iter().for_each(|at| block.release(*at, self.rest, now));
            freed.len()
        })
        .await
    }

    /// Ends all rests of a block. Gives whether there were any.
    pub(crate) async fn wake(&self, ground: &Ground, plot: &Plot) -> Result<Option<usize>, IpamError> {
        let mut woken = 0;
        for Seen { number, block, .. } in self.blocks(ground, plot).await? {
            if block.wakes(self.rest).is_none() {
                continue;
            }
            let key = self.keys.block(ground, plot.index, number);
            let size = plot.block_size(number);
            let Some(count) = self.rewrite(ground, &key, size, |block, _| usize::from(block.wake_all())).await? else {
                return Ok(None);
            };
            woken += count;
        }
        self.cache().forget();
        Ok(Some(woken))
    }

    async fn rewrite(
        &self,
        ground: &Ground,
        key: &Key,
        size: u16,
        change: impl Fn(&mut Block, overlay_core::Revision) -> usize,
    ) -> Result<Option<usize>, IpamError> {
        let guard = ground.guard.iter().map(|(key, _)| key.clone());
        let result = self.transaction().reading(guard.chain([key.clone()])).run(|snapshot| {
            Self::guard(ground, snapshot)?;
            let Some(entry) = snapshot.get(key)? else { return Ok((Commit::new(), (0, None))) };
            let mut block =
                Block::parse(&entry.value, size).map_err(|flaw| Stop::Corrupt { key: key.clone(), flaw })?;
            let changed = change(&mut block, entry.revision);
            if changed == 0 {
                return Ok((Commit::new(), (0, None)));
            }
            let value: Bytes = block.encode();
            Ok((Commit::new().put(key.clone(), value.clone()), (changed, Some((value, Arc::new(block))))))
        });
        let Some(done) = outcome(result.await)? else { return Ok(None) };
        let (changed, written) = done.output;
        self.know(written.into_iter().map(|(value, block)| (key.clone(), value, block)).collect(), done.at);
        Ok(Some(changed))
    }
}
