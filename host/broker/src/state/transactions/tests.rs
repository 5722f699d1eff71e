//! What would lose a transaction ends the program instead.

use super::*;

fn open() -> OpenTransaction {
    OpenTransaction {
        topic: TopicId(1),
        identity: Identity(1),
        tag: TagHash(0),
        opened_at: Millis(1),
        overrides: CheckOverrides::default(),
        checks: 0,
        next_due: Millis(2),
        parked: None,
        last_answer: None,
        failure: None,
    }
}

#[test]
#[should_panic(expected = "transaction 7 ends and is not open")]
fn a_transaction_ends_once() {
    let mut transactions = TransactionTables::default();
    transactions.open.put(HalfPosition(7), open());
    transactions.remove(HalfPosition(7));
    transactions.remove(HalfPosition(7));
}

#[test]
#[should_panic(expected = "the slot 0 of transaction 8 holds another one")]
fn no_transaction_takes_the_slot_of_another() {
    let mut table = MemoryTransactions::default();
    table.put(HalfPosition(7), open());
    table.empty.push(0);
    table.put(HalfPosition(8), open());
}

#[test]
#[should_panic(expected = "the slot 0 of transaction 7 is empty")]
fn an_open_transaction_is_in_its_slot() {
    let mut table = MemoryTransactions::default();
    table.put(HalfPosition(7), open());
    table.slots[0] = None;
    table.remove(HalfPosition(7));
}
