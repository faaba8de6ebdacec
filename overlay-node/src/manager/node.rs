//! Nodes: added and removed.

use overlay_core::{Commit, NodeId, Snapshot, UnixTime};

use super::Manager;
use super::allocate::Grave;
use super::endpoint::removing;
use super::transaction::{Decided, id_in, in_doubt, not_found, refuse};
use crate::catalogue::record::{Held, Object, encode_new};
use crate::{Condition, ControlError, Endpoint, Node, NodeSpec, Refused};

impl Manager {
    /// Writes a node down, or what is new about it.
    pub(super) fn put_node(&self, snapshot: &Snapshot, id: NodeId, spec: &NodeSpec, now: UnixTime) -> Decided<Node> {
        let keys = &self.keys;
        let (key, name, gone) = (keys.node(id), keys.node_name(&spec.name), keys.gone(Node::WHAT, id));
        snapshot.need([&key, &name, &gone])?;
        let held = self.held::<Node>(snapshot, &key)?;
        if let Some(entry) = snapshot.get(&name)?.filter(|entry| entry.value != id.to_string().as_bytes()) {
            let id = String::from_utf8_lossy(&entry.value).into_owned();
            return refuse(Refused::NameTaken { what: Node::WHAT, name: spec.name.clone(), id });
        }
        let Some(mut held) = held else {
            let node = Node { id, spec: spec.clone(), created: now, condition: Condition::Allocated };
            let commit = Commit::new().put(key, encode_new(&node)).put(name, id.to_string());
            return Ok((self.exhume::<Node>(snapshot, commit, id)?, node));
        };
        if held.is_removing() {
            return removing::<_, Node>(id);
        }
        if held.object.spec == *spec {
            return Ok((Commit::new(), held.object));
        }
        let mut commit = Commit::new();
        let former = keys.node_name(&held.object.spec.name);
        if former != name {
            commit = self.delete_own(snapshot, commit, former, &id.to_string())?.put(name, id.to_string());
        }
        held.object.spec = spec.clone();
        Ok((commit.put(key, held.encode()), held.object))
    }

    /// Removes a node, and its endpoints with it.
    pub(super) async fn unmake_node(&self, id: NodeId, now: UnixTime) -> Result<Vec<Endpoint>, ControlError> {
        let key = self.keys.node(id);
        let removing = self.run(|snapshot| match self.begin_removal::<Node>(snapshot, &key)? {
            (commit, Some(held)) => Ok((commit, held)),
            (_, None) => refuse(not_found::<Node>(id)),
        });
        let held = removing.await?;
        self.finish_node(&held, now).await.map_err(in_doubt)
    }

    /// Detaches what is on a node that is being removed, and deletes it. Nothing comes there any more: what is attached or moved
    /// compares the node's record. What has moved away by now stays.
    pub(super) async fn finish_node(&self, held: &Held<Node>, now: UnixTime) -> Result<Vec<Endpoint>, ControlError> {
        let mut ended = Vec::new();
        let node = held.object.id;
        for (key, entry) in self.store.list(&self.keys.containers(node)).await?.entries {
            ended.extend(self.unmake_endpoint(id_in(&key, &entry.value)?, Some(node), now).await?);
        }
        self.run(|snapshot| self.delete_node(snapshot, held, now)).await?;
        Ok(ended)
    }

    fn delete_node(&self, snapshot: &Snapshot, held: &Held<Node>, now: UnixTime) -> Decided<()> {
        let Node { id, spec, .. } = &held.object;
        let Some(commit) = self.delete(snapshot, held)? else { return Ok((Commit::new(), ())) };
        let commit = self.delete_own(snapshot, commit, self.keys.node_name(&spec.name), &id.to_string())?;
        Ok((self.bury::<Node>(snapshot, commit, (*id, Grave { at: now, spent: false }))?, ()))
    }
}
