//! The ledger: what independent witnesses say about every order and every sale, and whether it adds up.
//!
//! Of orders the witnesses are the SQLite file, the broker's HTTP API and the consumer's own log; of sales they are in
//! [`SalesEvidence`].

use std::collections::BTreeSet;

use serde_json::Value;

use super::agreement::{self, NodeEvidence};
use super::sales::SalesEvidence;
use super::screen::{Screen, Style};
use super::shipping::Shipment;
use super::story::ExpectedOrder;
use super::watch;

/// What the witnesses say.
pub(super) struct Evidence {
    /// Ids and statuses of all rows.
    pub(super) rows: Vec<(String, String)>,
    /// The order of each transaction, and the transaction as the broker shows it.
    pub(super) transactions: Vec<(String, Value)>,
    /// Everything that the consumer received.
    pub(super) shipments: Vec<Shipment>,
    /// Transactions that the broker holds open.
    pub(super) open: usize,
    /// What became of the lamps.
    pub(super) sales: SalesEvidence,
    /// What each node of a cluster has; empty where one is alone.
    pub(super) nodes: Vec<NodeEvidence>,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// Its number.
    order: String,
    /// Status of its row, as the database has it.
    row: Option<String>,
    /// How its transaction ended, as the broker has it.
    outcome: String,
    /// Who ended it.
    decider: String,
    /// How often the consumer wrote it down.
    delivered: usize,
}

/// The lines and what is wrong with them.
pub(super) struct Ledger {
    entries: Vec<Entry>,
    lamps: Lamps,
    nodes: Vec<NodeEvidence>,
    faults: Vec<String>,
}

/// The line of the sales.
#[derive(Debug, PartialEq, Eq)]
struct Lamps {
    /// How many came.
    came: i64,
    /// How many were sold, one by one.
    sold: usize,
    /// How many the component's state says are left.
    left: Option<i64>,
    /// Reservations that the warehouse got.
    reserved: usize,
}

impl Ledger {
    /// Draws it up.
    pub(super) fn new(evidence: &Evidence, expected: &[ExpectedOrder]) -> Self {
        let mut orders: BTreeSet<&str> = expected.iter().map(|expected| expected.order).collect();
        orders.extend(evidence.rows.iter().map(|(order, _)| order.as_str()));
        orders.extend(evidence.transactions.iter().map(|(order, _)| order.as_str()));
        orders.extend(evidence.shipments.iter().map(|shipment| shipment.order.as_str()));
        let entries: Vec<Entry> = orders.into_iter().map(|order| evidence.entry(order)).collect();
        let mut faults: Vec<String> = entries.iter().filter_map(Entry::contradiction).collect();
        faults.extend(entries.iter().filter_map(|entry| entry.surprise(expected)));
        if evidence.open > 0 {
            faults.push(format!("the broker still holds {} open transactions", evidence.open));
        }
        faults.extend(evidence.sales.faults());
        let committed = entries.iter().filter(|entry| entry.outcome == "committed").count();
        faults.extend(agreement::faults(&evidence.nodes, committed, evidence.sales.sold.len()));
        Self { entries, lamps: Lamps::of(&evidence.sales), nodes: evidence.nodes.clone(), faults }
    }

    /// Whether everything agrees.
    pub(super) fn adds_up(&self) -> bool {
        self.faults.is_empty()
    }

    /// Shows it.
    pub(super) fn print(&self, screen: &Screen) -> std::io::Result<()> {
        screen.line("  order    row in orders.db  message      decided by  delivered")?;
        for entry in &self.entries {
            let row = entry.row.as_deref().unwrap_or("none");
            screen.line(&format!(
                "  {:<7}  {row:<16}  {:<11}  {:<10}  {:>9}",
                entry.order, entry.outcome, entry.decider, entry.delivered
            ))?;
        }
        screen.line("")?;
        screen.line("  lamps    came  sold  left, says the component's state  reserved")?;
        let Lamps { came, sold, left, reserved } = self.lamps;
        let left = left.map_or_else(|| "-".to_owned(), |left| left.to_string());
        screen.line(&format!("           {came:>4}  {sold:>4}  {left:>31}  {reserved:>8}"))?;
        screen.line("")?;
        if !self.nodes.is_empty() {
            agreement::table(&self.nodes).iter().try_for_each(|line| screen.line(line))?;
            screen.line("")?;
        }
        for fault in &self.faults {
            screen.line(&screen.styled(&format!("  {fault}"), Style::Bad))?;
        }
        let verdict = if self.adds_up() { self.sum() } else { "It does not add up.".to_owned() };
        let style = if self.adds_up() { Style::Good } else { Style::Bad };
        for line in verdict.lines() {
            screen.line(&screen.styled(line, style))?;
        }
        Ok(())
    }

    /// What is said when it adds up.
    fn sum(&self) -> String {
        let with_row = self.entries.iter().filter(|entry| entry.row.is_some()).count();
        let committed = self.entries.iter().filter(|entry| entry.outcome == "committed").count();
        let delivered: usize = self.entries.iter().map(|entry| entry.delivered).sum();
        let by_component = self.entries.iter().filter(|entry| entry.decider == "component").count();
        let orders = self.entries.len();
        let Lamps { came, sold, left, reserved } = self.lamps;
        let died = match self.nodes.is_empty() {
            true => format!("The broker died in the middle of {sold} sales: of"),
            false => format!(
                "The node that led died twice, with a half message just taken and in the middle\nof {sold} sales, and all three nodes have the same. Of"
            ),
        };
        format!(
            "It adds up: {with_row} rows, {committed} messages committed, {delivered} delivered, each once; the\n\
             order without a row was dropped. {by_component} of {orders} were settled by the component.\n\
             {died} {came} lamps {} are left, and\n\
             {reserved} reservations came, one for each sale.",
            left.unwrap_or_default()
        )
    }
}

impl Evidence {
    /// What the three say of one order.
    fn entry(&self, order: &str) -> Entry {
        let transaction = self.transactions.iter().find(|(of, _)| of == order).map(|(_, transaction)| transaction);
        Entry {
            order: order.to_owned(),
            row: self.rows.iter().find(|(id, _)| id == order).map(|(_, status)| status.clone()),
            outcome: transaction.and_then(watch::ended).unwrap_or("open").to_owned(),
            decider: transaction.map_or_else(|| "-".to_owned(), watch::decider),
            delivered: self.shipments.iter().filter(|shipment| shipment.order == order).count(),
        }
    }
}

impl Lamps {
    /// What there is to add up.
    fn of(sales: &SalesEvidence) -> Self {
        let SalesEvidence { came, sold, left, reserved, more: _ } = sales;
        Self { came: *came, sold: sold.len(), left: *left, reserved: reserved.len() }
    }
}

impl SalesEvidence {
    /// The rule of the shelf: each sale took one lamp, and is reserved once.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let due = i64::try_from(self.sold.len()).ok().and_then(|sold| self.came.checked_sub(sold));
        if self.left != due {
            faults.push(format!("{:?} lamps are left, and it should be {due:?}", self.left));
        }
        let all: BTreeSet<&String> = self.sold.iter().chain(&self.reserved).collect();
        for order in all {
            let times = |of: &[String]| of.iter().filter(|each| *each == order).count();
            let (sold, reserved) = (times(&self.sold), times(&self.reserved));
            if sold != reserved {
                faults.push(format!("{order}: sold {sold} times, reserved {reserved} times"));
            }
        }
        if self.more > 0 {
            faults.push(format!("the broker still has {} reservations for the warehouse", self.more));
        }
        faults
    }
}

impl Entry {
    /// The rule of the shop: a message is delivered once if its row is paid, and never otherwise.
    fn contradiction(&self) -> Option<String> {
        let paid = self.row.as_deref() == Some(super::database::PAID);
        let wanted = if paid { ("committed", 1) } else { ("rolled back", 0) };
        ((self.outcome.as_str(), self.delivered) != wanted).then(|| {
            let row = self.row.as_deref().unwrap_or("none");
            format!("{}: row {row}, but {} and delivered {} times", self.order, self.outcome, self.delivered)
        })
    }

    /// What the story promised.
    fn surprise(&self, expected: &[ExpectedOrder]) -> Option<String> {
        let Some(wanted) = expected.iter().find(|expected| expected.order == self.order) else {
            return Some(format!("{}: nobody ordered this", self.order));
        };
        let found = (self.row.as_deref(), self.outcome.as_str(), self.decider.as_str(), self.delivered);
        let promised = (wanted.row, wanted.outcome, wanted.decider, wanted.delivered);
        (found != promised).then(|| format!("{}: found {found:?}, the story says {promised:?}", self.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::agreement::Placed;
    use crate::demo::story;
    use serde_json::json;

    fn evidence_of(several: bool) -> Evidence {
        let transaction = |outcome: &str, by: &str| json!({"state": outcome, "last_answer": {"by": by}});
        let orders = || ["S-01", "S-02"].map(str::to_owned).to_vec();
        let sales = SalesEvidence { came: 5, sold: orders(), left: Some(3), reserved: orders(), more: 0 };
        let placed = |of: &[&str]| of.iter().map(|id| Placed { place: "p".to_owned(), id: (*id).to_owned() }).collect();
        let node = NodeEvidence {
            node: "node 1".to_owned(),
            orders: placed(&["1", "2", "3", "5", "6", "7"]),
            reservations: placed(&["S-01", "S-02"]),
            left: Some(3),
        };
        let nodes =
            if several { vec![node.clone(), NodeEvidence { node: "node 2".to_owned(), ..node }] } else { Vec::new() };
        let mut evidence =
            Evidence { rows: Vec::new(), transactions: Vec::new(), shipments: Vec::new(), open: 0, sales, nodes };
        for expected in &story::expected(several) {
            let state = expected.outcome.replace(' ', "_");
            let by = format!("{} x", expected.decider);
            evidence.transactions.push((expected.order.to_owned(), transaction(&state, &by)));
            if let Some(status) = expected.row {
                evidence.rows.push((expected.order.to_owned(), status.to_owned()));
            }
            if expected.delivered > 0 {
                let order = expected.order.to_owned();
                evidence.shipments.push(Shipment { order, message_id: "01".to_owned(), attempt: 1 });
            }
        }
        evidence
    }

    fn evidence() -> Evidence {
        evidence_of(false)
    }

    fn faults(evidence: &Evidence) -> String {
        Ledger::new(evidence, &story::expected(!evidence.nodes.is_empty())).faults.join("\n")
    }

    #[test]
    fn the_story_as_written_adds_up() {
        assert_eq!(faults(&evidence()), "");
        assert_eq!(faults(&evidence_of(true)), "");
    }

    #[test]
    fn a_node_that_has_something_else_does_not_add_up() {
        let mut evidence = evidence_of(true);
        evidence.nodes[1].reservations.pop();
        let faults = faults(&evidence);
        assert!(faults.contains("node 2 has 6 orders and 1 reservations"), "{faults}");
        assert!(faults.contains("node 2 does not have what node 1 has"), "{faults}");
    }

    #[test]
    fn a_lost_delivery_does_not_add_up() {
        let mut evidence = evidence();
        evidence.shipments.pop();
        assert!(faults(&evidence).contains("A-1005: row paid, but committed and delivered 0 times"));
    }

    #[test]
    fn a_second_delivery_does_not_add_up() {
        let mut evidence = evidence();
        evidence.shipments.push(evidence.shipments[0].clone());
        assert!(faults(&evidence).contains("A-1001: row paid, but committed and delivered 2 times"));
    }

    #[test]
    fn a_delivery_without_a_row_does_not_add_up() {
        let mut evidence = evidence();
        evidence.shipments.push(Shipment { order: "A-1004".to_owned(), message_id: "01".to_owned(), attempt: 1 });
        assert!(faults(&evidence).contains("A-1004: row none, but rolled back and delivered 1 times"));
    }

    #[test]
    fn somebody_else_deciding_does_not_add_up() {
        let mut evidence = evidence();
        evidence.transactions[2].1["last_answer"]["by"] = json!("operator me");
        assert!(faults(&evidence).contains("A-1003: found"));
    }

    #[test]
    fn a_sale_that_counted_twice_or_not_at_all_does_not_add_up() {
        for (left, shown) in [(Some(2), "Some(2)"), (Some(4), "Some(4)"), (None, "None")] {
            let mut evidence = evidence();
            evidence.sales.left = left;
            assert_eq!(faults(&evidence), format!("{shown} lamps are left, and it should be Some(3)"));
        }
    }

    #[test]
    fn a_reservation_that_is_lost_doubled_or_nobodys_does_not_add_up() {
        let mut lost = evidence();
        lost.sales.reserved.pop();
        assert_eq!(faults(&lost), "S-02: sold 1 times, reserved 0 times");
        let mut doubled = evidence();
        doubled.sales.reserved.push("S-01".to_owned());
        assert_eq!(faults(&doubled), "S-01: sold 1 times, reserved 2 times");
        let mut strange = evidence();
        strange.sales.reserved.push("S-99".to_owned());
        assert_eq!(faults(&strange), "S-99: sold 0 times, reserved 1 times");
        let mut more = evidence();
        more.sales.more = 1;
        assert_eq!(faults(&more), "the broker still has 1 reservations for the warehouse");
    }

    #[test]
    fn strangers_and_open_transactions_do_not_add_up() {
        let mut evidence = evidence();
        evidence.rows.push(("B-1".to_owned(), "paid".to_owned()));
        evidence.open = 1;
        let faults = faults(&evidence);
        assert!(faults.contains("B-1: nobody ordered this") && faults.contains("1 open"), "{faults}");
    }
}
