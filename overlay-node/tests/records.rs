//! Records that an earlier release wrote are read, and what it does not know is written only where somebody asked for it.

use overlay_lb::{Scheduler, Weight};
use overlay_node::{Balancing, EndpointSpec, ServiceSpec};

#[test]
fn a_service_of_before_there_was_balancing_is_balanced_as_usual_and_written_as_it_was() {
    let text = r#"{"name":"web","networks":{},"mode":"vip","ports":[],"labels":{}}"#;
    let spec: ServiceSpec = serde_json::from_str(text).unwrap();
    assert!(spec.balancing.is_usual());
    assert_eq!(serde_json::to_string(&spec).unwrap(), text);
    let balancing = Balancing { scheduler: Scheduler::Maglev, ..Balancing::default() };
    let asked = ServiceSpec { balancing, ..spec };
    let written = serde_json::to_string(&asked).unwrap();
    assert!(written.contains(r#""balancing":{"scheduler":"maglev"}"#), "{written}");
    assert_eq!(serde_json::from_str::<ServiceSpec>(&written).unwrap(), asked);
}

#[test]
fn an_endpoint_of_before_there_were_weights_weighs_one_and_one_of_weight_0_is_refused() {
    let (network, node) = ([1; 16], [2; 16]);
    let spec = EndpointSpec::new(
        overlay_core::NetworkId::from_bytes(network),
        "web-1".parse().unwrap(),
        overlay_core::NodeId::from_bytes(node),
    );
    let text = serde_json::to_string(&spec).unwrap();
    assert!(!text.contains("weight"), "{text}");
    let heavy = EndpointSpec { weight: Weight::new(3).unwrap(), ..spec.clone() };
    assert_eq!(serde_json::from_str::<EndpointSpec>(&text).unwrap(), spec);
    let written = serde_json::to_string(&heavy).unwrap();
    assert_eq!(serde_json::from_str::<EndpointSpec>(&written).unwrap(), heavy);
    assert!(serde_json::from_str::<EndpointSpec>(&written.replace(":3", ":0")).is_err());
}
