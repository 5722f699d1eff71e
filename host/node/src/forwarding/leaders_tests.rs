use std::cell::Cell;
use std::sync::Arc;

use vouch_broker::{NewMessage, ResourceName};
use vouch_transport::PeerSecurity;

use super::*;
use crate::{Node, NodeConfig, PeerSettings, SendRequest};

const ME: NodeId = NodeId(1);

/// A node that may have others, so that calls can be passed on; and where these are passed on by what its test says.
struct Bench {
    node: Node,
    leads: watch::Sender<Option<NodeId>>,
    leaders: Leaders,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = "127.0.0.1:0".to_owned();
        let peers = PeerSettings::new(listen, PeerSecurity::Insecure);
        let config = NodeConfig {
            segment_size: Some(4 << 20),
            zero_ahead: 1 << 20,
            snapshot_every: 32 << 20,
            ..NodeConfig::new(folder.path())
        };
        let node = Node::start(NodeConfig { peers: Some(peers), ..config }).unwrap();
        let (leads, watched) = watch::channel(None);
        let leaders = Leaders::new(ME, watched, node.cluster.speaking.clone());
        Self { node, leads, leaders, _folder: folder }
    }

    /// Does something here, as this says the how-manieth time, within the time that a client waits.
    async fn done(
        &self,
        within: Duration,
        here: impl Fn(u32) -> Result<u32, NotDone>,
    ) -> (Result<u32, NotDone>, Counts) {
        let counts = Counts::default();
        let here = || {
            counts.here.set(counts.here.get() + 1);
            std::future::ready(here(counts.here.get()))
        };
        let ask = || {
            counts.asked.set(counts.asked.get() + 1);
            ForwardedAsk::Ack(Vec::new().into())
        };
        let context = CallContext { deadline: Some(Instant::now() + within), ..CallContext::default() };
        let done = context.within(self.leaders.done(here, ask, |_| None)).await;
        (done, counts)
    }
}

/// How often something was done here, and made for another node.
#[derive(Default)]
struct Counts {
    here: Cell<u32>,
    asked: Cell<u32>,
}

impl Counts {
    fn are(&self, here: u32, asked: u32) -> bool {
        (self.here.get(), self.asked.get()) == (here, asked)
    }
}

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(200);

fn not_leading(leader: Option<u64>) -> NotDone {
    NothingStored::NotLeading { leader }.into()
}

#[tokio::test]
async fn a_node_without_others_does_everything_itself_and_asks_nobody_who_leads() {
    let (_leads, watched) = watch::channel(None);
    let leaders = Leaders::new(ME, watched, None);
    assert!(!leaders.has_others());
    let asked = || -> ForwardedAsk<'static> { unreachable!("nobody is there") };
    let here = || std::future::ready(Err::<u32, _>(not_leading(None)));
    assert_eq!(leaders.done(here, asked, |_| None).await, Err(not_leading(None)), "also what went wrong is its own");
}

#[tokio::test]
async fn what_this_node_leads_it_does_and_what_it_refuses_is_not_tried_again() {
    let bench = Bench::new();
    bench.leads.send_replace(Some(ME));
    assert!(bench.leaders.is_here());
    let (done, counts) = bench.done(LONG, Ok).await;
    assert!(done == Ok(1) && counts.are(1, 0));
    for refused in [
        NotDone::Refused(Refusal::Invalid("no".to_owned())),
        NothingStored::StorageFull("full".to_owned()).into(),
        NotDone::Unknown("perhaps".to_owned()),
    ] {
        let (done, counts) = bench.done(LONG, |_| Err(refused.clone())).await;
        assert!(done == Err(refused) && counts.are(1, 0));
    }
    bench.node.stop().await;
}

#[tokio::test]
async fn who_asks_a_leader_whose_disk_hangs_hears_in_time_that_nobody_knows() {
    let bench = Bench::new();
    bench.leads.send_replace(Some(ME));
    let here = || std::future::pending::<Result<u32, NotDone>>();
    let asked = || ForwardedAsk::Ack(Vec::new().into());
    let context = CallContext { deadline: Some(Instant::now() + SHORT), ..CallContext::default() };
    let began = Instant::now();
    let done = context.within(bench.leaders.done(here, asked, |_| None)).await;
    let Err(NotDone::Unknown(why)) = done else { panic!("it may have been done: {done:?}") };
    assert!(why.contains("node 1 leads") && began.elapsed() < LEADER_WITHIN, "{why}");
    bench.node.stop().await;
}

#[tokio::test]
async fn where_nobody_leads_a_call_waits_for_a_leader_and_with_its_client_no_longer() {
    let bench = Bench::new();
    let began = Instant::now();
    let (done, counts) = bench.done(SHORT, Ok).await;
    assert!(done == Err(not_leading(None)) && counts.are(0, 0), "certainly nothing was stored");
    assert!(began.elapsed() < LEADER_WITHIN, "its client waits for less than that");
    let elected = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        bench.leads.send_replace(Some(ME));
    };
    let ((done, counts), ()) = tokio::join!(bench.done(LONG, Ok), elected);
    assert!(done == Ok(1) && counts.are(1, 0));
    bench.node.stop().await;
}

#[tokio::test]
async fn what_a_leader_that_is_none_any_more_did_not_take_is_tried_again() {
    let bench = Bench::new();
    bench.leads.send_replace(Some(ME));
    let here = |time| if time < 3 { Err(not_leading(None)) } else { Ok(time) };
    let (done, counts) = bench.done(LONG, here).await;
    assert!(done == Ok(3) && counts.are(3, 0));
    // For a while, from when a leader was missed.
    let (done, _) = bench.done(SHORT, |_| Err(not_leading(Some(2)))).await;
    assert_eq!(done, Err(not_leading(Some(2))));
    bench.node.stop().await;
}

#[tokio::test]
async fn a_leader_that_is_not_reached_was_certainly_not_asked_and_the_call_is_made_once() {
    let bench = Bench::new();
    bench.leads.send_replace(Some(NodeId(2)));
    assert_eq!(bench.leaders.leader(), Some(NodeId(2)));
    let (done, counts) = bench.done(SHORT, Ok).await;
    assert!(done == Err(not_leading(Some(2))) && counts.are(0, 1), "{done:?}");
    let comes_back = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        bench.leads.send_replace(Some(ME));
    };
    let ((done, counts), ()) = tokio::join!(bench.done(LONG, Ok), comes_back);
    assert!(done == Ok(1) && counts.are(1, 1), "whoever leads then does it");
    bench.node.stop().await;
}

#[tokio::test]
async fn what_came_from_another_node_goes_no_further() {
    let bench = Bench::new();
    for leader in [None, Some(ME), Some(NodeId(2))] {
        bench.leads.send_replace(leader);
        let (done, counts) = CallContext::passed_on(bench.done(LONG, |_| Err(not_leading(Some(2))))).await;
        assert!(done == Err(not_leading(Some(2))) && counts.are(1, 0), "at once, and once");
    }
    bench.node.stop().await;
}

#[tokio::test]
async fn what_is_too_long_for_another_node_is_refused_with_what_to_do() {
    let bench = Bench::new();
    bench.leads.send_replace(Some(NodeId(2)));
    let message = NewMessage { body: Bytes::from(vec![1; CALL_MAX_BYTES]), ..vouch_broker::testing::message("long") };
    let request = SendRequest { topic: ResourceName::plain("t"), producer: "p".to_owned(), messages: vec![message] };
    let here = || std::future::ready(Ok(()));
    let ask = || ForwardedAsk::Send(std::borrow::Cow::Borrowed(&request));
    let Err(NotDone::Refused(Refusal::Invalid(why))) = bench.leaders.done(here, ask, |_| Some(())).await else {
        panic!("it fits nowhere")
    };
    assert!(why.contains("too long to be passed on") && why.contains("vouch cluster status"), "{why}");
    bench.node.stop().await;
}

#[test]
fn what_only_looks_may_be_asked_again_where_an_answer_was_lost_and_nothing_else() {
    let call = |ask| EncodedCall::of(&CallContext::default(), ask).unwrap();
    let name = || std::borrow::Cow::Owned(ResourceName::plain("g"));
    let looks = call(ForwardedAsk::Group(name())).unanswered(NodeId(2), "gone");
    assert_eq!(looks, not_leading(Some(2)));
    let writes = call(ForwardedAsk::Topic { name: name(), to_send: true }).unanswered(NodeId(2), "gone");
    assert!(matches!(writes, NotDone::Unknown(why) if why.contains("node 2") && why.contains("gone")));
}

#[tokio::test]
async fn a_leader_is_replaced_when_another_leads_and_not_when_nobody_does() {
    let (leads, watched) = watch::channel(Some(NodeId(2)));
    let leaders = Arc::new(Leaders::new(ME, watched, None));
    let replaced = tokio::spawn({
        let leaders = leaders.clone();
        async move { leaders.is_replaced(NodeId(2)).await }
    });
    leads.send_replace(None);
    leads.send_replace(Some(NodeId(2)));
    tokio::task::yield_now().await;
    assert!(!replaced.is_finished());
    leads.send_replace(Some(NodeId(3)));
    replaced.await.unwrap();
}
