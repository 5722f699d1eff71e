//! QueryRoute and QueryAssignment (§4.1, §4.5).
//!
//! There is one broker, and a client reaches it where it already does: any node takes any call. So a route is no answer to where, only
//! to what: how many queues there are, and which kinds of messages they take. Only where the operator says so (`routes_to_leader`)
//! are clients led to the node that leads, which saves their calls a hop.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use vouch_broker::{MessageKind, TopicType};
use vouch_protocol::validate::Violation;
use vouch_protocol::wire::{
    Address, AddressScheme, Assignment, Broker, Code, Endpoints, MessageQueue, MessageType, Permission,
    QueryAssignmentRequest, QueryAssignmentResponse, QueryRouteRequest, QueryRouteResponse, Resource,
};

use super::Messaging;
use super::answer::{RefusedCall, ok};
use super::caller::CallMetadata;
use super::span::CallSubject;

/// Name of the one broker in a route.
const BROKER_NAME: &str = "vouch";
/// Addresses in one access point.
const ADDRESSES_MAX: usize = 64;
/// Longest host name (DNS).
const HOST_MAX_BYTES: usize = 255;
/// Stands for every queue of the broker.
const ANY_QUEUE: i32 = -1;

impl Messaging {
    /// All queues of a topic, reachable where the client already is: with its own endpoints echoed it opens no second
    /// connection, and the address works through containers and forwarded ports.
    ///
    /// # Errors
    /// The topic does not exist and is not made, or the access point of the request cannot be echoed.
    pub(super) async fn query_route(
        &self,
        caller: CallMetadata<'_>,
        request: QueryRouteRequest,
    ) -> Result<QueryRouteResponse, RefusedCall> {
        let client_id = caller.client_id()?;
        self.heard(client_id);
        let topic = caller.names().topic(request.topic.clone())?;
        CallSubject { topic: Some(&topic), ..CallSubject::default() }.record();
        let endpoints = self.endpoints(&caller, request.endpoints)?;
        let info = self.shared.node.settings.topic_for_route(&topic).await?;
        self.shared.node.sessions.note_route(client_id, &topic, Instant::now());
        let accepted = accepted_types(info.config.topic_type);
        let queue = |id| queue(&request.topic, id, endpoints.clone(), accepted.clone());
        let message_queues = (0..info.config.queues).map(|id| queue(i32::try_from(id).unwrap_or(i32::MAX))).collect();
        Ok(QueryRouteResponse { status: Some(ok()), message_queues })
    }

    /// The same for every consumer of the group: what is received is decided here, not by the queues a client holds.
    pub(super) async fn query_assignment(
        &self,
        caller: CallMetadata<'_>,
        request: QueryAssignmentRequest,
    ) -> Result<QueryAssignmentResponse, RefusedCall> {
        self.heard(caller.client_id()?);
        let topic = caller.names().topic(request.topic.clone())?;
        let group = caller.names().group(request.group)?;
        CallSubject { topic: Some(&topic), group: Some(&group), ..CallSubject::default() }.record();
        let endpoints = self.endpoints(&caller, request.endpoints)?;
        self.shared.node.settings.topic(&topic).await?;
        let message_queue = Some(queue(&request.topic, ANY_QUEUE, endpoints, Vec::new()));
        Ok(QueryAssignmentResponse { status: Some(ok()), assignments: vec![Assignment { message_queue }] })
    }

    /// Where the client is to send, receive, and hear what it is asked: where it is, or where it is led.
    ///
    /// # Errors
    /// The access point of the request cannot be echoed.
    fn endpoints(&self, caller: &CallMetadata<'_>, asked: Option<Endpoints>) -> Result<Endpoints, Violation> {
        let echoed = access_point(asked)?;
        let route = || self.shared.node.cluster.client_route().and_then(|route| led_to(&route));
        Ok(caller.takes_several_addresses().then(route).flatten().unwrap_or(echoed))
    }
}

/// These addresses as one value for a client. `None`: they are not all of one family, and of names a client takes only one.
fn led_to(route: &[String]) -> Option<Endpoints> {
    let all: Vec<SocketAddr> = route.iter().map(|address| address.parse().ok()).collect::<Option<_>>()?;
    let first = all.first()?;
    if all.iter().any(|address| address.is_ipv4() != first.is_ipv4()) {
        return None;
    }
    let scheme = if first.is_ipv4() { AddressScheme::IPv4 } else { AddressScheme::IPv6 };
    let address = |address: &SocketAddr| Address { host: address.ip().to_string(), port: address.port().into() };
    Some(Endpoints { scheme: scheme as i32, addresses: all.iter().map(address).collect() })
}

/// A queue of a topic, as a route lists it.
fn queue(topic: &Option<Resource>, id: i32, endpoints: Endpoints, accepted: Vec<i32>) -> MessageQueue {
    MessageQueue {
        topic: topic.clone(),
        id,
        permission: Permission::ReadWrite as i32,
        broker: Some(Broker { name: BROKER_NAME.to_owned(), id: 0, endpoints: Some(endpoints) }),
        accept_message_types: accepted,
    }
}

/// Kinds that a producer may send. Fifo and delay are left out until they are built, so that producers refuse them.
fn accepted_types(topic_type: TopicType) -> Vec<i32> {
    let built = [(MessageKind::Normal, MessageType::Normal), (MessageKind::Transaction, MessageType::Transaction)];
    built.into_iter().filter(|(kind, _)| topic_type.takes(*kind)).map(|(_, wire)| wire as i32).collect()
}

/// The endpoints of the request, fit to be echoed.
///
/// # Errors
/// It has no address, too many, or one without a host or a port.
fn access_point(endpoints: Option<Endpoints>) -> Result<Endpoints, Violation> {
    let refuse = |text: &'static str| Err(Violation::new(Code::IllegalAccessPoint, text));
    let mut endpoints = endpoints.unwrap_or_default();
    let Some(first) = endpoints.addresses.first() else {
        return refuse("the access point has no address; configure the client with host:port");
    };
    if endpoints.addresses.len() > ADDRESSES_MAX {
        return refuse("the access point has more than 64 addresses");
    }
    // What is echoed is the host as it came, once for each queue: blanks count.
    let usable =
        |host: &str, port| host.len() <= HOST_MAX_BYTES && !host.trim().is_empty() && (1..=65535).contains(&port);
    if !endpoints.addresses.iter().all(|address| usable(&address.host, address.port)) {
        return refuse("an address of the access point has no host, or a port that is not 1 to 65535");
    }
    // Some clients reject an unspecified scheme in a route.
    if !matches!(endpoints.scheme(), AddressScheme::IPv4 | AddressScheme::IPv6 | AddressScheme::DomainName) {
        let scheme = match first.host.parse() {
            Ok(IpAddr::V4(_)) => AddressScheme::IPv4,
            Ok(IpAddr::V6(_)) => AddressScheme::IPv6,
            Err(_) => AddressScheme::DomainName,
        };
        endpoints.set_scheme(scheme);
    }
    if endpoints.scheme() == AddressScheme::DomainName && endpoints.addresses.len() > 1 {
        return refuse("an access point by name has one address; use addresses, or one name for all");
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(scheme: AddressScheme, addresses: &[(&str, i32)]) -> Option<Endpoints> {
        let address = |(host, port): &(&str, i32)| Address { host: (*host).into(), port: *port };
        Some(Endpoints { scheme: scheme as i32, addresses: addresses.iter().map(address).collect() })
    }

    #[test]
    fn a_usable_access_point_is_echoed_unchanged() {
        for given in [
            endpoints(AddressScheme::IPv4, &[("127.0.0.1", 8081), ("10.0.0.1", 65535)]),
            endpoints(AddressScheme::DomainName, &[("localhost", 1)]),
            endpoints(AddressScheme::IPv6, &[("::1", 8081)]),
        ] {
            assert_eq!(access_point(given.clone()).ok(), given);
        }
    }

    #[test]
    fn an_unspecified_scheme_is_found_from_the_host() {
        for (host, scheme) in
            [("127.0.0.1", AddressScheme::IPv4), ("::1", AddressScheme::IPv6), ("h", AddressScheme::DomainName)]
        {
            let given = endpoints(AddressScheme::Unspecified, &[(host, 8081)]);
            assert_eq!(access_point(given).unwrap().scheme(), scheme);
        }
    }

    #[test]
    fn an_unusable_access_point_is_refused() {
        let v4 = |addresses: &[(&str, i32)]| endpoints(AddressScheme::IPv4, addresses);
        let long = "h".repeat(HOST_MAX_BYTES + 1);
        let blanks = format!("h{}", " ".repeat(HOST_MAX_BYTES));
        for given in [
            None,
            v4(&[]),
            v4(&[("", 8081)]),
            v4(&[(" ", 8081)]),
            v4(&[(&long, 8081)]),
            v4(&[(&blanks, 8081)]),
            v4(&[("h", 1), (&blanks, 1)]),
            v4(&[("h", 0)]),
            v4(&[("h", 65536)]),
            v4(&[("h", -1)]),
            v4(&[("h", 1); ADDRESSES_MAX + 1]),
            endpoints(AddressScheme::DomainName, &[("a", 1), ("b", 1)]),
        ] {
            assert_eq!(access_point(given.clone()).unwrap_err().code, Code::IllegalAccessPoint, "{given:?}");
        }
        assert!(access_point(v4(&[(&long[1..], 1); ADDRESSES_MAX])).is_ok());
        assert!(access_point(v4(&[(&blanks[..HOST_MAX_BYTES], 1)])).is_ok());
    }

    #[test]
    fn a_client_is_led_to_addresses_of_one_family_and_never_to_several_names() {
        let led = |route: &[&str]| led_to(&route.iter().map(|&address| address.to_owned()).collect::<Vec<_>>());
        assert_eq!(
            led(&["10.0.0.2:8081", "10.0.0.1:8082"]),
            endpoints(AddressScheme::IPv4, &[("10.0.0.2", 8081), ("10.0.0.1", 8082)])
        );
        assert_eq!(led(&["[::1]:1"]), endpoints(AddressScheme::IPv6, &[("::1", 1)]));
        for route in [&[][..], &["10.0.0.1:1", "[::1]:1"], &["broker:8081"], &["10.0.0.1:1", "broker:8081"]] {
            assert_eq!(led(route), None, "{route:?}");
        }
    }

    #[test]
    fn every_topic_accepts_at_least_one_kind_and_none_that_is_not_built() {
        assert_eq!(accepted_types(TopicType::Normal), [1]);
        assert_eq!(accepted_types(TopicType::Transaction), [4]);
        assert_eq!(accepted_types(TopicType::Mixed), [1, 4]);
    }
}
