//! `cargo xtask deps`: dependencies between the workspace's crates go one way, as [`ROOMS`] has them.

use std::collections::BTreeSet;

use cargo_metadata::{Dependency, DependencyKind, Metadata, Package};

use crate::rooms::{EVERYTHING, ROOMS, Room, table};
use crate::step::{Outcome, no_arguments, read, verdict};
use crate::workspace::metadata;

const PAGE: &str = "ARCHITECTURE.md";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    let mut complaints = complaints(&metadata()?);
    complaints.extend(of_page(&read(PAGE)?));
    verdict(&complaints)
}

/// The page shows the table that crates are held to.
fn of_page(page: &str) -> Option<String> {
    let table = table();
    (!page.contains(&table))
        .then(|| format!("{PAGE} is to say who may depend on whom as xtask/src/rooms.rs does:\n{table}"))
}

fn complaints(metadata: &Metadata) -> Vec<String> {
    let members = metadata.workspace_packages();
    let names: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    members.into_iter().flat_map(|member| of_member(member, &names)).collect()
}

fn of_member(member: &Package, members: &BTreeSet<&str>) -> Vec<String> {
    let Some(room) = ROOMS.iter().find(|room| member.name.as_str() == room.name) else {
        return vec![format!("{} is not in the table: add what it may depend on to xtask/src/rooms.rs", member.name)];
    };
    let dependencies = member.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
    let wrong = dependencies.filter_map(|dependency| of_dependency(room, member, dependency, members));
    wrong.chain(of_features(room, member)).collect()
}

/// Features that turn on another crate's `testing`, and are not the crate's own `testing`.
fn of_features(room: &Room, member: &Package) -> Option<String> {
    let kit = |value: &String| value.ends_with("/testing");
    let (name, _) = member.features.iter().find(|(name, values)| *name != "testing" && values.iter().any(kit))?;
    (!room.testing).then(|| format!("{} brings in a test kit by feature `{name}`; only `testing` may", room.name))
}

fn of_dependency(room: &Room, member: &Package, dependency: &Dependency, members: &BTreeSet<&str>) -> Option<String> {
    let from = room.name;
    let to = word(&dependency.name, members)?;
    if to == "overlay-core" && !room.testing && dependency.features.iter().any(|feature| feature == "testing") {
        return Some(format!("{from} has overlay-core's `testing` outside its tests: make it a dev-dependency"));
    }
    if room.on.contains(&EVERYTHING) || room.on.contains(&to) {
        return None;
    }
    let Some((_, feature)) = room.optionally.iter().find(|(name, _)| *name == to) else {
        let allowed: Vec<_> = room.on.iter().copied().chain(room.optionally.iter().map(|(name, _)| *name)).collect();
        return Some(format!("{from} depends on {}; it may depend on [{}]", dependency.name, allowed.join(", ")));
    };
    if !dependency.optional {
        return Some(format!("{from} depends on {} outright; it may do so behind a feature only", dependency.name));
    }
    let others: Vec<_> =
        bringing_in(member, dependency).filter(|name| !feature.is_empty() && name != feature).collect();
    (!others.is_empty())
        .then(|| format!("{from} brings in {} by {others:?}; only feature `{feature}` may", dependency.name))
}

/// What the table calls a dependency; `None` for those it does not govern.
fn word<'a>(dependency: &str, members: &BTreeSet<&'a str>) -> Option<&'a str> {
    if dependency == "tokio" || dependency.starts_with("tokio-") {
        return Some("tokio");
    }
    members.get(dependency).copied()
}

/// The features that turn an optional dependency on.
fn bringing_in<'a>(member: &'a Package, dependency: &Dependency) -> impl Iterator<Item = &'a String> {
    let name = dependency.rename.as_ref().unwrap_or(&dependency.name);
    let triggers = [format!("dep:{name}"), name.clone()];
    let with_feature = format!("{name}/");
    let turns_on = move |value: &String| triggers.contains(value) || value.starts_with(&with_feature);
    member.features.iter().filter(move |(_, values)| values.iter().any(&turns_on)).map(|(feature, _)| feature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Crate, Kind, metadata};

    fn of(crates: &[Crate]) -> Vec<String> {
        complaints(&metadata(crates))
    }

    fn vxlan() -> Crate {
        Crate::new("overlay-vxlan").needs("overlay-core", Kind::Normal).needs("serde", Kind::Normal)
    }

    #[test]
    fn the_directions_of_the_architecture_pass() {
        let core = Crate::new("overlay-core").needs("overlay-core", Kind::Testing);
        let kernel = Crate::new("overlay-kernel").needs("overlay-core", Kind::Normal);
        let vxlan = vxlan()
            .needs("overlay-core", Kind::Testing)
            .needs("overlay-kernel", Kind::Optional)
            .feature("kernel", &["dep:overlay-kernel"]);
        let bench = Crate::new("overlay-bench").needs("overlay-vxlan", Kind::Normal).needs("tokio", Kind::Normal);
        assert_eq!(of(&[core, kernel, vxlan, bench]), [""; 0]);
    }

    #[test]
    fn an_area_on_an_area_is_caught_and_told_what_it_may_have() {
        let complaints = of(&[vxlan().needs("overlay-lb", Kind::Normal), Crate::new("overlay-lb")]);
        let expected = "overlay-vxlan depends on overlay-lb; it may depend on [overlay-core, overlay-kernel, tokio]";
        assert_eq!(complaints, [expected]);
        assert_eq!(of(&[vxlan().needs("overlay-lb", Kind::Build), Crate::new("overlay-lb")]), [expected]);
    }

    #[test]
    fn core_on_anything_of_ours_is_caught() {
        let complaints =
            of(&[Crate::new("overlay-core").needs("overlay-kernel", Kind::Optional), Crate::new("overlay-kernel")]);
        assert_eq!(complaints, ["overlay-core depends on overlay-kernel; it may depend on []"]);
    }

    #[test]
    fn the_kernel_comes_to_an_area_by_its_one_feature_only() {
        let kernel = || Crate::new("overlay-kernel");
        let outright = of(&[vxlan().needs("overlay-kernel", Kind::Normal), kernel()]);
        assert_eq!(outright, ["overlay-vxlan depends on overlay-kernel outright; it may do so behind a feature only"]);
        for trigger in ["dep:overlay-kernel", "overlay-kernel", "overlay-kernel/probe"] {
            let optional = vxlan().needs("overlay-kernel", Kind::Optional).feature("linux", &[trigger]);
            let expected = "overlay-vxlan brings in overlay-kernel by [\"linux\"]; only feature `kernel` may";
            assert_eq!(of(&[optional, kernel()]), [expected]);
        }
    }

    #[test]
    fn tokio_is_the_drivers_and_elsewhere_behind_a_feature() {
        assert!(of(&[Crate::new("overlay-driver").needs("tokio", Kind::Normal)]).is_empty());
        assert!(
            of(&[Crate::new("overlay-dns").needs("tokio", Kind::Optional).feature("server", &["dep:tokio"])])
                .is_empty()
        );
        assert_eq!(of(&[Crate::new("overlay-dns").needs("tokio-util", Kind::Normal)]).len(), 1);
        for name in ["overlay-core", "overlay-node", "overlay-datapath", "overlay-fabric"] {
            assert_eq!(of(&[Crate::new(name).needs("tokio", Kind::Optional)]).len(), 1, "{name}");
        }
        let store =
            |feature| Crate::new("overlay-store").needs("tokio", Kind::Optional).feature(feature, &["dep:tokio"]);
        assert!(of(&[store("etcd")]).is_empty());
        assert_eq!(of(&[store("redb")]).len(), 1);
    }

    #[test]
    fn the_test_kit_outside_tests_is_caught() {
        let complaints =
            of(&[Crate::new("overlay-lb").needs("overlay-core", Kind::NormalTesting), Crate::new("overlay-core")]);
        assert_eq!(complaints, ["overlay-lb has overlay-core's `testing` outside its tests: make it a dev-dependency"]);
        let by = |feature| of(&[Crate::new("overlay-lb").feature(feature, &["overlay-core/testing"])]);
        assert_eq!(by("kernel"), ["overlay-lb brings in a test kit by feature `kernel`; only `testing` may"]);
        assert!(by("testing").is_empty());
    }

    #[test]
    fn a_member_without_a_line_is_told_where_to_get_one() {
        let complaints = of(&[Crate::new("overlay-surprise")]);
        assert!(complaints[0].contains("xtask/src/rooms.rs"), "{complaints:?}");
    }

    #[test]
    fn the_architecture_shows_the_table_and_is_told_where_it_does_not() {
        let page = include_str!("../../ARCHITECTURE.md");
        assert_eq!(of_page(page), None);
        let areas = table().lines().find(|row| row.contains("`overlay-ipam`")).map(str::to_owned).unwrap();
        let ends = "| `overlay-core` | `overlay-kernel` by `kernel`, tokio by any |";
        assert!(areas.contains("`overlay-dns`") && areas.ends_with(ends), "{areas}");
        let complaint = of_page(&page.replace(ends, "| `overlay-core` | – |")).unwrap();
        assert!(complaint.contains(&areas), "{complaint}");
    }

    #[test]
    fn the_table_itself_has_no_cycle_and_no_unknown_name() {
        for (at, room) in ROOMS.iter().enumerate() {
            let optionally = room.optionally.iter().map(|(name, _)| name);
            for name in room.on.iter().chain(optionally).filter(|name| !["tokio", EVERYTHING].contains(name)) {
                assert!(
                    ROOMS[..at].iter().any(|below| below.name == *name),
                    "{} on {name}, which is not below it",
                    room.name
                );
            }
        }
    }
}
