//! A key is spent by the step that adds its association, and by nothing else.

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Backend as _, ErrorKind, IpFamily, Lower as _, State as _, Table, reconcile, told};
use overlay_crypto::kernel::{Esp, Lack, Xfrm};
use overlay_crypto::{Cipher, SaId, State, Tunnel};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;

use crate::laws::owner;
use crate::town::{LOOK, Look, address, port, spi};

fn home() -> (Namespace, Xfrm) {
    let home = Namespace::create().unwrap();
    let xfrm = open(&home);
    (home, xfrm)
}

fn open(home: &Namespace) -> Xfrm {
    Xfrm::open(&owner(), home.try_clone().unwrap()).unwrap()
}

/// A tunnel that takes by that SPI and sends by the next.
fn wanted(look: Look, number: u32, family: IpFamily) -> State {
    let tunnel = Tunnel { port: port(4790), local: address(1, family), peer: address(2, family) };
    look.tunnel(tunnel, number, &[number + 1])
}

fn spent(state: &State) -> usize {
    state.sas.values().filter(|sa| sa.key.is_spent()).count()
}

#[test]
fn what_is_lowered_planned_or_dropped_takes_no_key() {
    kernel_test(Kernel::Host, "crypto::what_is_planned_takes_no_key", || {
        let (_home, xfrm) = home();
        let mut xfrm = xfrm.with_esp(Esp::default());
        let state = wanted(LOOK, 0x1000, IpFamily::V4);
        let native = xfrm.lower(&state).unwrap().into_owned();
        drop((native.check(), native));
        let plan = Table::<State>::plan(&mut xfrm, &state).unwrap();
        assert_eq!(plan.len(), 6 + 2 + 2);
        let shown = format!("{plan} {plan:?} {state:?}");
        assert!(!shown.contains("5a") && !shown.contains("90, 90"), "nor is one printed: {shown}");
        drop(plan);
        assert_eq!(spent(&state), 0);
    });
}

#[test]
fn a_kernel_without_esp_is_refused_by_name_with_the_remedy_and_takes_no_key() {
    kernel_test(Kernel::Host, "crypto::a_kernel_without_esp_is_refused_by_name", || {
        let (home, mut xfrm) = home();
        let refused = |xfrm: &mut Xfrm, state: &State| {
            let refused = reconcile(xfrm, state).unwrap_err().to_string();
            assert_eq!((spent(state), xfrm.observe().unwrap()), (0, Default::default()), "{refused}");
            refused
        };
        let mut none = open(&home).with_esp(Esp::none());
        let guards = State { ports: [port(4790)].into(), ..State::default() };
        let said = refused(&mut none, &guards);
        assert!(
            said.contains("port 4790: ESP: this kernel has none") && said.contains("modules esp4 and esp6"),
            "{said}"
        );
        assert!(reconcile(&mut none, &State::default()).unwrap().is_empty(), "what needs none is not refused");
        let over = |family| Esp { lacks: [Lack::Over(family)].into() };
        let state = wanted(LOOK, 0x1000, IpFamily::V6);
        let said = refused(&mut open(&home).with_esp(over(IpFamily::V6)), &state);
        assert!(said.contains("SA 0x00001000 to fd00::1: ESP over IPv6: ") && said.contains("esp6"), "{said}");
        let chacha = Look { cipher: Cipher::ChaCha20Poly1305, ..LOOK };
        let lacks = [Lack::Cipher(Cipher::ChaCha20Poly1305)].into();
        let said = refused(&mut open(&home).with_esp(Esp { lacks }), &wanted(chacha, 0x1000, IpFamily::V4));
        assert!(said.contains("ChaCha20-Poly1305: this kernel lacks it") && said.contains("or use AES-GCM"), "{said}");

        // This very kernel, and what it says itself where what it has was not asked for.
        let lacking = xfrm.esp().clone();
        if lacking.lacks.is_empty() {
            return;
        }
        let state = wanted(LOOK, 0x1000, IpFamily::V4);
        let needs = [Lack::Over(IpFamily::V4), Lack::Cipher(LOOK.cipher)];
        if needs.iter().any(|need| lacking.lacks.contains(need)) {
            refused(&mut xfrm, &state);
            let failed = reconcile(&mut open(&home).with_esp(Esp::default()), &state).unwrap_err();
            assert!(told(&failed).contains("add SA 0x00001000 to 192.0.2.1"), "{}", told(&failed));
            assert_eq!(spent(&state), 0, "the kernel refused it, so the key is as it was");
            assert!(open(&home).lost(&state).unwrap().is_empty());
        }
    });
}

#[test]
fn esp_in_udp_is_refused_by_name() {
    kernel_test(Kernel::Host, "crypto::esp_in_udp_is_refused_by_name", || {
        let (_home, xfrm) = home();
        let mut state = wanted(LOOK, 0x1000, IpFamily::V4);
        state.sas.values_mut().for_each(|sa| sa.udp = Some(Default::default()));
        let said = xfrm.with_esp(Esp::default()).lower(&state).unwrap_err().to_string();
        assert!(
            said.contains("SA 0x00001000 to 192.0.2.1: ESP in UDP: a kernel takes that only by a socket"),
            "{said}"
        );
    });
}

#[test]
fn the_labs_kernel_lacks_nothing() {
    kernel_test(Kernel::Lab, "crypto::the_labs_kernel_lacks_nothing", || assert_eq!(*home().1.esp(), Esp::default()));
}

#[test]
fn a_step_that_the_kernel_refuses_leaves_the_key_and_the_next_plan_uses_it() {
    kernel_test(Kernel::Lab, "crypto::a_refused_step_leaves_the_key", || {
        let (home, mut xfrm) = home();
        let state = wanted(LOOK, 0x1000, IpFamily::V4);
        let of = "src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x1000";
        let add =
            format!("ip xfrm state add {of} reqid 9 mode transport aead 'rfc4106(gcm(aes))' 0x{} 128", "11".repeat(20));
        judge(&home, "sh", &["-ec", &add]);
        let failed = reconcile(&mut xfrm, &state).unwrap_err();
        assert!(told(&failed).contains("another SPI"), "{}", told(&failed));
        assert_eq!(spent(&state), 0, "that step was the first of two");
        judge(&home, "sh", &["-ec", &format!("ip xfrm state delete {of}")]);
        reconcile(&mut xfrm, &state).unwrap();
        assert_eq!(spent(&state), 2);
        assert!(reconcile(&mut xfrm, &state).unwrap().is_empty());
    });
}

#[test]
fn what_is_there_is_adopted_by_its_parameters_and_no_key_is_compared() {
    kernel_test(Kernel::Lab, "crypto::associations_are_adopted_by_their_parameters", || {
        let (home, mut xfrm) = home();
        for family in [IpFamily::V4, IpFamily::V6] {
            let state = wanted(LOOK, 0x1000, family);
            reconcile(&mut xfrm, &state).unwrap();
            assert!(
                reconcile(&mut open(&home), &state).unwrap().is_empty(),
                "by another process, with keys that are spent"
            );
            let again = wanted(LOOK, 0x1000, family);
            assert!(reconcile(&mut open(&home), &again).unwrap().is_empty());
            assert_eq!(spent(&again), 0, "what is there needs no key");
            let other = wanted(Look { cipher: Cipher::Aes128Gcm, ..LOOK }, 0x1000, family);
            let failed = reconcile(&mut open(&home), &other).unwrap_err();
            assert!(told(&failed).contains("another SPI"), "{}", told(&failed));
            assert_eq!(spent(&other), 0);
        }
    });
}

#[test]
fn what_was_flushed_is_told_and_comes_back_in_a_new_epoch_only() {
    kernel_test(Kernel::Lab, "crypto::what_was_flushed_comes_back_in_a_new_epoch_only", || {
        let (home, mut xfrm) = home();
        let state = wanted(LOOK, 0x1000, IpFamily::V4);
        reconcile(&mut xfrm, &state).unwrap();
        assert_eq!(xfrm.lost(&state).unwrap(), []);
        judge(&home, "ip", &["xfrm", "state", "flush"]);
        let ids: Vec<SaId> = state.sas.keys().copied().collect();
        assert_eq!(xfrm.lost(&state).unwrap(), ids);
        let steps = xfrm.observe().unwrap().plan(&xfrm.lower(&state).unwrap());
        let failed = xfrm.apply(&steps).unwrap_err();
        assert_eq!((failed.at, failed.source.kind()), (0, ErrorKind::Conflict), "{}", told(&failed));
        let next = wanted(LOOK, 0x2000, IpFamily::V4);
        let plan = reconcile(&mut xfrm, &next).unwrap();
        assert_eq!(plan.len(), 3, "two associations, and the policy that sends: {plan}");
        assert_eq!((xfrm.lost(&next).unwrap(), spent(&next)), (vec![], 2));
        assert!(xfrm.observe().unwrap().sas.keys().all(|id| id.spi >= spi(0x2000).get()));
    });
}
