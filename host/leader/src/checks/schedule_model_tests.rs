//! The schedule is what a plain model says, whatever happens in whatever order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Open(u32),
    Pass(u64),
    Take,
    Checker(bool),
    NoAnswer(usize),
    AskAgain(usize, u64),
    Unknown(usize),
    LateNoAnswer(usize),
    LateUnknown(usize),
    End(usize),
    Park(usize),
    Resume(usize),
    DueChanged(u32, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..64_usize;
    prop_oneof![
        3 => (0..2_u32).prop_map(Step::Open),
        6 => (0..4000_u64).prop_map(Step::Pass),
        8 => Just(Step::Take),
        1 => any::<bool>().prop_map(Step::Checker),
        3 => which.clone().prop_map(Step::NoAnswer),
        3 => (which.clone(), 0..3000_u64).prop_map(|(which, ms)| Step::AskAgain(which, ms)),
        3 => which.clone().prop_map(Step::Unknown),
        1 => which.clone().prop_map(Step::LateNoAnswer),
        1 => which.clone().prop_map(Step::LateUnknown),
        1 => which.clone().prop_map(Step::End),
        1 => which.clone().prop_map(Step::Park),
        2 => which.prop_map(Step::Resume),
        2 => (0..2_u32, 0..8000_u64).prop_map(|(topic, ago)| Step::DueChanged(topic, ago)),
    ]
}

/// What the schedule must know, in the plainest form.
#[derive(Default)]
struct Model {
    transactions: Vec<HalfPosition>,
    under_way: Vec<Due>,
    over: Vec<Due>,
    again: BTreeMap<HalfPosition, Millis>,
}

impl Model {
    /// Since when each transaction waits to be asked about, or will; without those that are never asked about.
    fn due_at(&self, bench: &Bench) -> BTreeMap<HalfPosition, Millis> {
        let asked: BTreeSet<HalfPosition> = self.under_way.iter().map(|due| due.transaction).collect();
        let open = |id: &HalfPosition| bench.state.open_transactions().get(*id).filter(|open| open.parked.is_none());
        let waiting = self.transactions.iter().filter(|id| !asked.contains(id));
        waiting.filter_map(|id| Some((*id, self.again.get(id).copied().unwrap_or(open(id)?.next_due)))).collect()
    }

    /// The log said something new about a transaction.
    fn forget(&mut self, transaction: HalfPosition) {
        self.again.remove(&transaction);
        self.over.extend(self.under_way.extract_if(.., |due| due.transaction == transaction));
    }

    fn stop(&mut self, which: usize) -> Option<Due> {
        let len = self.under_way.len();
        let due = (len > 0).then(|| self.under_way.swap_remove(which % len))?;
        self.over.push(due.clone());
        Some(due)
    }

    fn pick<T: Clone>(all: &[T], which: usize) -> Option<T> {
        (!all.is_empty()).then(|| all[which % all.len()].clone())
    }

    fn run(&mut self, bench: &mut Bench, step: Step) {
        match step {
            Step::Open(topic) => self.transactions.push(bench.open(bench.topic(topic))),
            Step::Pass(ms) => bench.pass(ms),
            Step::Take => self.take(bench),
            Step::Checker(there) => bench.with_checker = there,
            Step::NoAnswer(which) => {
                if let Some(due) = self.stop(which) {
                    assert!(bench.no_answer(&due).is_some());
                    let next = bench.schedule.no_answers(due.transaction).unwrap().next_at;
                    assert!(next > bench.now && next <= bench.now.plus_ms(STEP_MS));
                    self.again.insert(due.transaction, next);
                }
            }
            Step::AskAgain(which, ms) => {
                if let Some(due) = self.stop(which) {
                    let at = bench.now.plus_ms(ms);
                    bench.schedule.ask_again(&due, at);
                    self.again.insert(due.transaction, at);
                }
            }
            Step::Unknown(which) => {
                if let Some(due) = Self::pick(&self.under_way, which) {
                    assert!(matches!(bench.unknown(&due), Ok(Applied::Counted { .. })));
                    self.forget(due.transaction);
                }
            }
            Step::LateNoAnswer(which) => {
                if let Some(due) = Self::pick(&self.over, which) {
                    assert_eq!(bench.no_answer(&due), None);
                    bench.schedule.ask_again(&due, Millis(0));
                }
            }
            Step::LateUnknown(which) => {
                if let Some(due) = Self::pick(&self.over, which)
                    && matches!(bench.unknown(&due), Ok(Applied::Counted { .. }))
                {
                    self.forget(due.transaction);
                }
            }
            Step::End(which) => self.log(bench, which, Bench::end),
            Step::Park(which) => self.log(bench, which, Bench::park),
            Step::Resume(which) => {
                if let Some(transaction) = Self::pick(&self.transactions, which) {
                    let _ = bench.resume(transaction);
                }
            }
            Step::DueChanged(topic, ago) => {
                bench.schedule.due_changed(bench.topic(topic), Millis(bench.now.0.saturating_sub(ago)));
            }
        }
        self.compare(bench);
    }

    fn log(&mut self, bench: &mut Bench, which: usize, write: impl Fn(&mut Bench, HalfPosition) -> Outcome) {
        if let Some(transaction) = Self::pick(&self.transactions, which) {
            let _ = write(bench, transaction);
            self.forget(transaction);
        }
    }

    fn take(&mut self, bench: &mut Bench) {
        let expected = self.due_at(bench);
        let (taken, next) = bench.take();
        for due in taken {
            let transaction = due.transaction;
            assert!(expected.get(&transaction).is_some_and(|at| *at <= bench.now), "{transaction} is not due");
            assert!(self.under_way.iter().all(|other| other.transaction != transaction), "asked twice at once");
            self.again.remove(&transaction);
            self.under_way.push(due);
        }
        let left = self.due_at(bench);
        for (transaction, at) in &left {
            let topic = bench.state.open_transactions().get(*transaction).unwrap().topic;
            if *at > bench.now {
                // Where somebody asks and there is room, the schedule knows when to look again.
                let known = !bench.with_checker || self.is_full(bench, topic) || next.is_some_and(|next| next <= *at);
                assert!(known, "nobody looks at {transaction} at {at:?}: {next:?}");
            } else {
                assert!(!bench.with_checker || self.is_full(bench, topic), "{transaction} is due and was left");
            }
        }
    }

    fn is_full(&self, bench: &Bench, topic: TopicId) -> bool {
        let (asks_max, in_topic) = (bench.schedule.asks_max, self.in_topic(bench, topic));
        let share = (asks_max / bench.schedule.busy_topics.max(1)).max(1);
        in_topic >= bench.schedule.asks_per_topic_max || (self.under_way.len() >= asks_max && in_topic >= share)
    }

    fn in_topic(&self, bench: &Bench, topic: TopicId) -> usize {
        let name = bench.state.topics().name_of(topic).unwrap();
        self.under_way.iter().filter(|due| due.topic == *name).count()
    }

    /// What is counted is what is under way, and no bound is passed.
    fn compare(&self, bench: &Bench) {
        assert_eq!(bench.schedule.asking(), self.under_way.len());
        // A topic that came when all places were taken has its share of them besides: with two topics all or half.
        assert!(self.under_way.len() <= 2 * bench.schedule.asks_max);
        for due in &self.under_way {
            assert!(bench.schedule.is_under_way(due));
        }
        for topic in 0..2 {
            let id = bench.topic(topic);
            let count = bench.schedule.topics.get(&id).map_or(0, |part| part.asks);
            assert_eq!(count, self.in_topic(bench, id));
            assert!(count <= bench.schedule.asks_per_topic_max);
        }
        let again = bench.schedule.tracked.values().filter(|tracked| matches!(tracked.phase, Phase::Again(_))).count();
        let in_order: usize = bench.schedule.topics.values().map(|part| part.again.len()).sum();
        assert_eq!(again, in_order);
    }

    /// Answers everything until nothing is left open.
    fn finish(&mut self, bench: &mut Bench) {
        bench.with_checker = true;
        for transaction in self.transactions.clone() {
            let _ = bench.resume(transaction);
        }
        bench.pass(10 * STEP_MS);
        let rounds = self.transactions.len() + 1;
        for _ in 0..rounds {
            for due in self.under_way.clone() {
                bench.end(due.transaction).unwrap();
                self.forget(due.transaction);
            }
            self.take(bench);
        }
        assert!(bench.state.open_transactions().is_empty(), "some were never asked about");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_schedule_is_what_a_plain_model_says(
        steps in proptest::collection::vec(step(), 1..200),
        asks_max in 1..6_usize,
        asks_per_topic_max in 1..4_usize,
    ) {
        let mut bench = Bench::new(asks_max, asks_per_topic_max, 2);
        let mut model = Model::default();
        for step in steps {
            model.run(&mut bench, step);
        }
        model.finish(&mut bench);
    }
}
