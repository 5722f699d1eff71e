//! What is played: five orders. With three nodes two more follow (`takeover`), then the sales (`sales`).

use super::database;
use super::event::DemoMoment;
use super::screen::Style;
use super::service::Hold;
use super::stage::DemoStage;
use crate::http::HttpClient;
use serde_json::json;

/// What must be true of an order at the end.
#[derive(Clone, Copy)]
pub(super) struct ExpectedOrder {
    /// Its number.
    pub(super) order: &'static str,
    /// Status of its row; `None`: no row.
    pub(super) row: Option<&'static str>,
    /// How its transaction ended.
    pub(super) outcome: &'static str,
    /// Who decided.
    pub(super) decider: &'static str,
    /// Times it reached the consumer.
    pub(super) delivered: usize,
}

/// One that is paid and reaches the consumer once.
const fn delivered(order: &'static str, decider: &'static str) -> ExpectedOrder {
    ExpectedOrder { order, row: Some(database::PAID), outcome: "committed", decider, delivered: 1 }
}

/// The end of the story.
const EXPECTED: [ExpectedOrder; 5] = [
    delivered("A-1001", "client"),
    delivered("A-1002", "component"),
    delivered("A-1003", "component"),
    ExpectedOrder { order: "A-1004", row: None, outcome: "rolled back", decider: "component", delivered: 0 },
    delivered("A-1005", "component"),
];

/// And of those that are played with several nodes.
const EXPECTED_OF_SEVERAL: [ExpectedOrder; 2] = [delivered("A-1006", "component"), delivered("A-1007", "client")];

/// What must be true at the end, with one node or with `several`.
pub(super) fn expected(several: bool) -> Vec<ExpectedOrder> {
    let more: &[ExpectedOrder] = if several { &EXPECTED_OF_SEVERAL } else { &[] };
    [&EXPECTED, more].concat()
}

/// Says what the demo is about and who plays.
pub(super) fn introduce(stage: &DemoStage) -> anyhow::Result<()> {
    let screen = &stage.screen;
    let several = stage.nodes.are_several();
    let last = if several { "the node that leads" } else { "the broker itself" };
    let title = format!("vouch demo: a service, then {last}, dies at the worst moment");
    screen.line(&screen.styled(&title, Style::Strong))?;
    screen.line("")?;
    screen.paragraph(
        "An order service has two things to do for each order: write it to its database, and tell the rest of the \
         shop with a message. When it dies in between, one of the two is missing.",
    )?;
    screen.line("")?;
    screen.paragraph(
        "With Vouch the message goes first, as a half message that no consumer can see. Then the row is written, \
         then the message is committed. If the service never says how it ended, the broker finds out: a WebAssembly \
         component inside it asks the orders API what the database says, and settles the message.",
    )?;
    screen.line("\nOn stage; all real processes, files and sockets:")?;
    let broker = &stage.nodes.node(0).name;
    screen.line(&format!("  {broker:<12}vouch serve, gRPC {}, HTTP {}", stage.grpc_address, stage.http_address))?;
    if several {
        screen.line(&format!("  {:<12}the same; they join it first of all", "nodes 2, 3"))?;
    }
    let cast = [
        ("service", "takes orders, writes orders.db (SQLite), sends to topic orders".to_owned()),
        ("orders API", "reads the same orders.db; its own process, so it can be asked".to_owned()),
        ("", "while the service is dead".to_owned()),
        ("component", format!("http-checkback ({}), uploaded to the broker;", stage.component)),
        ("", format!("may call {} and nothing else", stage.orders_api)),
        ("shipping", "receives orders, keeps its own log of them".to_owned()),
        ("component", "stock, a consumer with a shelf of lamps; comes last".to_owned()),
    ];
    for (who, what) in cast {
        screen.line(&format!("  {who:<12}{what}"))?;
    }
    Ok(())
}

/// Everything goes well.
pub(super) fn healthy(stage: &mut DemoStage) -> anyhow::Result<()> {
    stage.chapter("A healthy order", "The service lives to say how it ended. The component is not needed.")?;
    stage.start_service()?;
    stage.order("A-1001", "a lamp", database::PAID, Hold::Never)?;
    stage.until("A-1001", DemoMoment::Received)
}

/// The database goes down after the row is written, so the service fails before it can commit.
pub(super) fn database_down(stage: &mut DemoStage) -> anyhow::Result<()> {
    stage.chapter("The database goes down in the middle of an order, and comes back",
        "The row is written, then everything fails. While nobody can read the database, nobody may guess: an answer that is none changes nothing and counts nothing.",
    )?;
    stage.order("A-1002", "a chair", database::PAID, Hold::AfterRow)?;
    stage.until("A-1002", DemoMoment::RowWritten)?;
    let (database, away) = (stage.database(), stage.database().with_extension("db.away"));
    std::fs::rename(&database, &away)?;
    stage.screen.strong_step("database", "goes down (orders.db is moved away)", Style::Bad)?;
    stage.go_on()?;
    stage.until("A-1002", DemoMoment::Failed)?;
    stage.until_watched("A-1002", |watch| watch.unanswered >= 1)?;
    std::fs::rename(&away, &database)?;
    stage.screen.step("database", "is back")?;
    stage.until("A-1002", DemoMoment::Received)
}

/// The service is killed between its database and its message.
pub(super) fn killed_after_row(stage: &mut DemoStage) -> anyhow::Result<()> {
    stage.chapter("The service is killed after its database, before its message",
        "The row is there, and the only process that knew of the message is gone. No producer is connected: the component asks the orders API instead.",
    )?;
    stage.order("A-1003", "a table", database::PAID, Hold::AfterRow)?;
    stage.until("A-1003", DemoMoment::RowWritten)?;
    stage.kill_service("is killed (kill -9)")?;
    stage.until("A-1003", DemoMoment::Received)
}

/// The service is killed before its database: the order never happened.
pub(super) fn killed_before_row(stage: &mut DemoStage) -> anyhow::Result<()> {
    stage.chapter("The service is killed before its database: this order never happened",
        "The message is there, the row is not. To deliver it would invent an order. The orders API says no and notes that it did: a row that came later, from a service that was only slow, would collide with that.",
    )?;
    stage.start_service()?;
    stage.order("A-1004", "a sofa", database::PAID, Hold::BeforeRow)?;
    stage.kill_service("is killed (kill -9) before it wrote the row")?;
    stage.until_watched("A-1004", |watch| watch.has_ended())
}

/// The row is there, the payment is not.
pub(super) fn payment_awaited(stage: &mut DemoStage) -> anyhow::Result<()> {
    stage.chapter("The order waits for its payment", "Nothing is broken; it is only too early to know.")?;
    stage.start_service()?;
    stage.order("A-1005", "a bed", database::AWAITING_PAYMENT, Hold::Never)?;
    stage.until("A-1005", DemoMoment::Told)?;
    stage.until_watched("A-1005", |watch| watch.checks() >= 2)?;
    HttpClient::new(&stage.orders_api, None)?.post("/orders/A-1005/payment", &json!({}))?;
    stage.until("A-1005", DemoMoment::Received)
}
