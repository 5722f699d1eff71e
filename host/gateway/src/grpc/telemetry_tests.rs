use std::task::Waker;

use bytes::Bytes;
use vouch_broker::{
    BodyEncoding, HalfPosition, MessageKind, Millis, NewMessage, ResourceName, ShardId, StoredMessage, TransactionId,
};
use vouch_node::TelemetryStream as _;

use super::*;

type End = oneshot::Sender<Result<(), Status>>;

fn stream() -> (Arc<Questions>, TelemetryOutput, End) {
    let (sender, queue) = mpsc::channel(QUEUE_LEN);
    let (end, ended) = oneshot::channel();
    let (store_host, part) = ("here".to_owned(), PartRoom::default());
    let asks = AskedAs { store_host, aside: Aside::default(), part, making: None };
    let questions = Arc::new(Questions { sender, ended: AtomicBool::new(false) });
    (questions, TelemetryOutput::new(queue, ended, asks), end)
}

fn question(transaction: u64) -> Question {
    question_of(transaction, Bytes::from_static(b"x"))
}

fn question_of(half: u64, body: Bytes) -> Question {
    let transaction = TransactionId::of_first_life(ShardId::FIRST, HalfPosition(half));
    let message = NewMessage {
        message_id: "m".to_owned(),
        tag: None,
        keys: vec![],
        properties: vec![],
        kind: MessageKind::Transaction,
        encoding: BodyEncoding::Identity,
        born_at: Millis(1),
        born_host: "h".to_owned(),
        trace_context: None,
        message_group: None,
        deliver_at: None,
        recovery_ms: None,
        body,
    };
    let half = StoredMessage { message, producer: "p".to_owned(), stored_at: Millis(2) };
    Question::new(CheckCommand { topic: ResourceName::plain("orders"), transaction, half })
}

fn poll(stream: &mut TelemetryOutput) -> Poll<Option<Result<TelemetryCommand, Status>>> {
    Pin::new(stream).poll_next(&mut Context::from_waker(Waker::noop()))
}

/// The transaction that the stream asks about now, if it asks.
fn asked(stream: &mut TelemetryOutput) -> Option<String> {
    match poll(stream) {
        Poll::Ready(Some(Ok(TelemetryCommand {
            command: Some(Command::RecoverOrphanedTransactionCommand(command)),
            ..
        }))) => Some(command.transaction_id),
        Poll::Pending => None,
        other => panic!("{other:?}"),
    }
}

fn id(half: u64) -> Option<String> {
    Some(TransactionId::of_first_life(ShardId(0), HalfPosition(half)).to_string())
}

#[test]
fn a_question_is_asked_when_the_transport_takes_it_and_no_earlier() {
    let (questions, mut stream, _end) = stream();
    let question = question(7);
    assert!(questions.send_check(question.clone()));
    assert_eq!(question.written_at(), None, "it is in the queue and was asked of nobody");
    assert_eq!(asked(&mut stream), id(7));
    assert!(question.written_at().is_some());
    assert_eq!(asked(&mut stream), None);
}

#[test]
fn a_question_that_was_withdrawn_is_passed_over() {
    let (questions, mut stream, _end) = stream();
    let (withdrawn, other) = (question(7), question(8));
    assert!(questions.send_check(withdrawn.clone()) && questions.send_check(other));
    assert!(withdrawn.withdraw());
    assert_eq!(asked(&mut stream), id(8));
    assert_eq!((asked(&mut stream), withdrawn.written_at()), (None, None));
}

#[test]
fn each_question_waits_until_what_was_handed_over_before_has_left() {
    let (questions, mut stream, _end) = stream();
    let second = question(8);
    assert!(questions.send_check(question(7)) && questions.send_check(second.clone()));
    assert_eq!(asked(&mut stream), id(7));
    // The transport gathers a piece until there is nothing more for now.
    assert_eq!((asked(&mut stream), second.written_at()), (None, None));
    assert_eq!(asked(&mut stream), id(8));
}

#[tokio::test]
async fn a_question_that_is_made_aside_keeps_the_room_of_its_own_piece_until_it_is_made() {
    let (questions, mut stream, _end) = stream();
    let part = stream.asks.part.clone();
    let large = question_of(8, vec![0; 1 << 20].into());
    assert!(questions.send_check(question(7)) && questions.send_check(large.clone()));
    assert_eq!(asked(&mut stream), id(7));
    assert_eq!((asked(&mut stream), large.written_at(), part.is_kept()), (None, None, false));
    assert_eq!((asked(&mut stream), part.is_kept()), (None, true));
    let made = std::future::poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await;
    assert!(matches!(made, Some(Ok(_))) && !part.is_kept());
}

#[test]
fn a_stream_that_is_not_read_takes_no_more_than_its_queue() {
    let (questions, mut stream, _end) = stream();
    for transaction in 0..QUEUE_LEN as u64 {
        assert!(questions.send_check(question(transaction)));
    }
    let one_too_many = question(99);
    assert!(!questions.send_check(one_too_many.clone()));
    assert_eq!(asked(&mut stream), id(0));
    assert!(questions.send_check(one_too_many));
}

#[test]
fn a_stream_whose_connection_is_gone_is_closed() {
    let (questions, stream, _end) = stream();
    let waiting = question(7);
    assert!(questions.is_open() && questions.send_check(waiting.clone()));
    drop(stream);
    assert!(!questions.is_open() && !questions.send_check(question(8)));
    assert_eq!(waiting.written_at(), None);
}

#[test]
fn a_stream_that_its_client_ended_is_closed_though_nobody_reads_the_end() {
    let (questions, mut stream, end) = stream();
    questions.ended.store(true, Ordering::Release);
    assert!(!questions.is_open() && !questions.send_check(question(7)));
    end.send(Ok(())).unwrap();
    assert!(matches!(poll(&mut stream), Poll::Ready(None)));
}
