// The unmodified Go client and three nodes that are one broker. VOUCH_LEADER_LOSSES (2), VOUCH_SEED.
package clients

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

const (
	lease     = 4 * time.Second
	longLease = time.Minute
	poll      = time.Second
)

func setting(name string, otherwise uint64) uint64 {
	if value, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return value
	}
	return otherwise
}

func unique(stem string) string { return fmt.Sprintf("go-%s-%08x", stem, rand.Uint32()) }

// answers is a checker: a resolution at each ask, of which the last repeats.
type answers struct {
	sync.Mutex
	of    map[string][]rmq.TransactionResolution
	asked map[string]int
}

func newAnswers() *answers {
	return &answers{of: map[string][]rmq.TransactionResolution{}, asked: map[string]int{}}
}

func (a *answers) set(key string, resolutions ...rmq.TransactionResolution) {
	a.Lock()
	defer a.Unlock()
	a.of[key] = resolutions
}

func (a *answers) times(key string) int {
	a.Lock()
	defer a.Unlock()
	return a.asked[key]
}

func (a *answers) checker() rmq.ProducerOption {
	return rmq.WithTransactionChecker(&rmq.TransactionChecker{Check: func(message *rmq.MessageView) rmq.TransactionResolution {
		a.Lock()
		defer a.Unlock()
		key := message.GetKeys()[0]
		a.asked[key]++
		answer := a.of[key]
		if answer == nil {
			return rmq.UNKNOWN
		}
		return answer[min(a.asked[key], len(answer))-1]
	}})
}

// simple is a simple consumer whose test stops it.
func (b broker) simple(group, topic string) (rmq.SimpleConsumer, error) {
	consumer, err := rmq.NewSimpleConsumer(b.config(group), rmq.WithSimpleAwaitDuration(poll),
		rmq.WithSimpleSubscriptionExpressions(all([]string{topic})))
	if err != nil {
		return nil, err
	}
	return consumer, consumer.Start()
}

// sender is a producer of several topics whose test stops it.
func (b broker) sender(topics []string, options ...rmq.ProducerOption) (rmq.Producer, error) {
	producer, err := rmq.NewProducer(b.config(""), append(options, rmq.WithTopics(topics...))...)
	if err != nil {
		return nil, err
	}
	return producer, producer.Start()
}

func keyed(topic, body string) *rmq.Message {
	message := &rmq.Message{Topic: topic, Body: []byte(body)}
	message.SetKeys(body)
	return message
}

// load is producers and consumers at all nodes.
type load struct {
	*ledger
	t                  *testing.T
	cluster            *cluster
	seed               uint64
	plain, half        string
	groups             []string
	checker            *answers
	stops              []func() error
	producing          sync.WaitGroup
	consuming          sync.WaitGroup
	sending, receiving atomic.Bool
}

func startLoad(t *testing.T, c *cluster, seed uint64) *load {
	name := unique("load")
	l := &load{ledger: newLedger(), t: t, cluster: c, seed: seed, plain: name + "-plain", half: name + "-tx",
		groups: []string{name + "-simple", name + "-push"}, checker: newAnswers()}
	leader := c.leader(t, nil)
	leader.createTopic(t, l.plain, `{"type":"normal","queues":2}`)
	leader.createTopic(t, l.half,
		`{"type":"transaction","queues":2,"transaction":{"immunity":"1s","interval":"1s","max_checks":1000}}`)
	l.sending.Store(true)
	l.receiving.Store(true)
	l.atEachNode(func(n *node) error {
		once, err := n.sender([]string{l.plain}, rmq.WithMaxAttempts(1))
		if err != nil {
			return err
		}
		l.stopLater(once.GracefulStop)
		l.producing.Go(func() { l.sendPlain(fmt.Sprintf("once-%d", n.id), once, true) })
		return nil
	}, func(n *node) error {
		again, err := n.sender([]string{l.plain})
		if err != nil {
			return err
		}
		l.stopLater(again.GracefulStop)
		l.producing.Go(func() { l.sendPlain(fmt.Sprintf("again-%d", n.id), again, false) })
		return nil
	}, func(n *node) error {
		half, err := l.transactional(n)
		if err == nil {
			l.producing.Go(func() { l.sendHalves(n.id, half) })
		}
		return err
	}, func(n *node) error {
		// One for each topic: this client waits at one topic while the other one has messages.
		for index, topic := range []string{l.plain, l.half} {
			consumer, err := n.simple(l.groups[0], topic)
			if err != nil {
				return err
			}
			l.stopLater(consumer.GracefulStop)
			l.consuming.Go(func() { l.receive(uint64(n.id*2+index), consumer) })
		}
		return nil
	}, func(n *node) error {
		if n.id == 1 {
			return nil // so its producers are also at a node without a member of the group
		}
		consumer, err := n.pushConsumer(l.groups[1], []string{l.plain, l.half}, func(message *rmq.MessageView) {
			l.delivered(l.groups[1], message)
		})
		// It waits for its last long poll when it stops, up to 20 seconds: nobody waits for that.
		l.stopLater(func() error {
			go consumer.GracefulStop()
			return nil
		})
		return err
	})
	return l
}

// atEachNode does all of that at the same time: a client of this kind takes a second or more to start.
func (l *load) atEachNode(works ...func(*node) error) {
	l.t.Helper()
	failures := make(chan error, len(works)*len(l.cluster.nodes))
	for _, n := range l.cluster.nodes {
		for _, work := range works {
			go func() { failures <- work(n) }()
		}
	}
	for range cap(failures) {
		if err := <-failures; err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *load) stopLater(stop func() error) {
	l.Lock()
	defer l.Unlock()
	l.stops = append(l.stops, stop)
}

func (l *load) transactional(n *node) (rmq.Producer, error) {
	producer, err := n.sender([]string{l.half}, l.checker.checker())
	if err == nil {
		l.stopLater(producer.GracefulStop)
	}
	return producer, err
}

func (l *load) sendPlain(name string, producer rmq.Producer, once bool) {
	for number := 0; l.sending.Load(); number++ {
		sent := l.begins(fmt.Sprintf("%s-%d", name, number), plain, once)
		receipts, err := producer.Send(context.Background(), keyed(l.plain, sent.body))
		l.ends(sent, receipts, err)
		pace(err, 40*time.Millisecond)
	}
}

func (l *load) sendHalves(id int, producer rmq.Producer) {
	random := rand.New(rand.NewPCG(l.seed, uint64(id)))
	for number := 0; l.sending.Load(); number++ {
		plan := plans[random.IntN(len(plans))]
		sent := l.begins(fmt.Sprintf("half-%d-%d", id, number), plan, false)
		end := rmq.ROLLBACK
		if plan.comes() {
			end = rmq.COMMIT
		}
		if plan == silentLate {
			l.checker.set(sent.body, rmq.UNKNOWN, end)
		} else {
			l.checker.set(sent.body, end)
		}
		transaction := producer.BeginTransaction()
		receipts, err := producer.SendWithTransaction(context.Background(), keyed(l.half, sent.body), transaction)
		l.ends(sent, receipts, err)
		if err == nil {
			l.end(plan, transaction)
		}
		pace(err, 60*time.Millisecond)
	}
}

// end does as planned. Where the answer gets lost, the checker says the same.
func (l *load) end(plan plan, transaction rmq.Transaction) {
	var err error
	switch plan {
	case commit:
		err = transaction.Commit()
	case rollback:
		err = transaction.RollBack()
	}
	if err != nil {
		l.note("end", err)
	}
}

// pace is how fast a load goes, and nothing that a test relies on.
func pace(err error, pause time.Duration) {
	if err != nil {
		pause = 200 * time.Millisecond
	}
	time.Sleep(pause)
}

func (l *load) receive(stream uint64, consumer rmq.SimpleConsumer) {
	random := rand.New(rand.NewPCG(l.seed, 100+stream))
	for l.receiving.Load() {
		messages, err := consumer.Receive(context.Background(), 16, lease)
		if err != nil && told(err) != nothing {
			l.note("receive", err)
			pace(err, 0)
		}
		for _, message := range messages {
			came := l.delivered(l.groups[0], message)
			if random.IntN(100) < 3 && came.attempt == 1 {
				continue // its lease runs out, and then it comes again
			}
			if err := ack(consumer, message); err == nil {
				l.isAcknowledged(came)
			} else if told(err) != "40013" { // its lease ran out meanwhile: no news
				l.note("ack", err)
			}
		}
	}
}

// nothing is what this client says where there is nothing to receive.
const nothing = "40401"

// goesOn waits until this many more sends were acknowledged.
func (l *load) goesOn(sends int) {
	l.t.Helper()
	before := l.acknowledgedSends()
	waitUntil(l.t, fmt.Sprintf("%d more sends are acknowledged", sends), time.Minute, func() bool {
		return l.acknowledgedSends() >= before+sends
	})
}

func (l *load) stopSending() {
	l.sending.Store(false)
	l.producing.Wait()
}

func (l *load) stop() {
	l.stopSending()
	l.receiving.Store(false)
	l.consuming.Wait()
	var stopping sync.WaitGroup
	for _, stop := range l.stops {
		stopping.Go(func() { _ = stop() })
	}
	stopping.Wait()
}

func within(atMost time.Duration, condition func() bool) bool {
	for end := time.Now().Add(atMost); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

func underLoad(t *testing.T, c *cluster, losses uint64) {
	seed := setting("VOUCH_SEED", uint64(rand.Uint32()))
	t.Logf("VOUCH_SEED=%d", seed)
	l := startLoad(t, c, seed)
	var stop sync.Once
	defer stop.Do(l.stop)
	for range losses {
		l.goesOn(60)
		lost := c.leader(t, nil)
		lost.kill()
		c.leader(t, lost)
		l.goesOn(60)
		lost.start(t)
		c.caughtUp(t)
		t.Logf("%s was killed", lost)
	}
	l.goesOn(60)
	for _, n := range c.nodes {
		if n.mapping == nil {
			continue
		}
		if past := n.mapping.past(); len(past) > 0 {
			t.Errorf("clients are led to the own port of %s: %v", n, past)
		}
		if n.mapping.carried.Load() == 0 {
			t.Errorf("no client came to %s over its mapped port", n)
		}
	}
	l.stopSending()
	// This client has no stream for minutes after its node was lost: another instance is asked instead.
	l.atEachNode(func(n *node) error {
		_, err := l.transactional(n)
		return err
	})
	waitUntil(t, "all transactions ended", time.Minute, func() bool { return c.leader(t, nil).openTransactions(l.half) == 0 })
	// What a lost node had and did not tell its push consumer stays with that for a lease of a minute.
	within(75*time.Second, func() bool {
		return !slices.ContainsFunc(l.groups, func(group string) bool { return len(l.missing(group)) > 0 })
	})
	time.Sleep(lease + poll) // what would come again, would come here
	stop.Do(l.stop)
	t.Log(l.summary(l.groups))
	if faults := l.faults(l.groups); len(faults) > 0 {
		t.Errorf("%d faults:\n%s", len(faults), strings.Join(faults[:min(30, len(faults))], "\n"))
	}
	for _, plan := range plans {
		had := false
		for _, each := range l.sends {
			had = had || each.plan == plan && each.acknowledged
		}
		if !had {
			t.Errorf("no transaction that was planned as %s", plan)
		}
	}
}

func TestLeadersAreKilledUnderLoadAndWhatAnybodyWasToldIsTrue(t *testing.T) {
	t.Parallel()
	underLoad(t, startCluster(t, false), setting("VOUCH_LEADER_LOSSES", 2))
}

func TestClientsBehindAPortMappingGoOnWhenTheLeaderIsKilled(t *testing.T) {
	t.Parallel()
	underLoad(t, startCluster(t, true), 1)
}

// comes receives until so many came, and acknowledges them.
func comes(t *testing.T, consumer rmq.SimpleConsumer, wanted ...string) {
	t.Helper()
	var bodies []string
	waitUntil(t, fmt.Sprintf("%v come", wanted), 30*time.Second, func() bool {
		for _, each := range receive(t, consumer) {
			bodies = append(bodies, string(each.GetBody()))
			if err := ack(consumer, each); err != nil {
				t.Fatal(err)
			}
		}
		return len(bodies) >= len(wanted)
	})
	slices.Sort(bodies)
	if !slices.Equal(bodies, wanted) {
		t.Errorf("wanted %v, got %v", wanted, bodies)
	}
}

func TestClientsOfFollowersDoAllThatThoseOfTheLeaderDo(t *testing.T) {
	t.Parallel()
	c := startCluster(t, false)
	followers := c.followers(t)
	one, other := followers[0], followers[1]
	topic, half := unique("follower"), unique("follower-tx")
	one.createTopic(t, topic, `{"type":"normal","queues":2}`)
	one.createTopic(t, half, `{"type":"transaction","transaction":{"immunity":"1s","interval":"1s"}}`)
	checker := newAnswers()
	checker.set("silent", rmq.UNKNOWN, rmq.COMMIT)
	producer, err := one.sender([]string{topic, half}, checker.checker())
	if err != nil {
		t.Fatal(err)
	}
	defer producer.GracefulStop()
	var consumers []rmq.SimpleConsumer
	for _, place := range []struct {
		node  *node
		topic string
	}{{one, topic}, {other, topic}, {other, half}} {
		consumer, err := place.node.simple(place.topic, place.topic)
		if err != nil {
			t.Fatal(err)
		}
		defer consumer.GracefulStop()
		consumers = append(consumers, consumer)
	}
	consumer, member, buyer := consumers[0], consumers[1], consumers[2]
	receipts, err := producer.Send(context.Background(), keyed(topic, "held"))
	if err != nil {
		t.Fatal(err)
	}
	once := func(consumer rmq.SimpleConsumer) *rmq.MessageView {
		var messages []*rmq.MessageView
		waitUntil(t, "a message comes", 30*time.Second, func() bool {
			messages, err = consumer.Receive(context.Background(), 1, longLease)
			if err != nil && told(err) != nothing {
				t.Fatal(err)
			}
			return len(messages) == 1
		})
		return messages[0]
	}
	held := once(consumer)
	if held.GetMessageId() != receipts[0].MessageID {
		t.Errorf("sent %s, received %s", receipts[0].MessageID, held.GetMessageId())
	}
	stale := *held
	if err := consumer.ChangeInvisibleDuration(held, time.Second); err != nil {
		t.Fatal(err)
	}
	again := once(member)
	if held.GetDeliveryAttempt() != 1 || again.GetDeliveryAttempt() != 2 {
		t.Errorf("attempts %d, %d", held.GetDeliveryAttempt(), again.GetDeliveryAttempt())
	}
	if err := ack(consumer, &stale); err == nil || told(err) != "40013" {
		t.Errorf("a stale handle: %v", err)
	}
	if err := ack(member, again); err != nil {
		t.Fatal(err)
	}

	for _, body := range []string{"kept", "dropped", "silent"} {
		transaction := producer.BeginTransaction()
		if _, err := producer.SendWithTransaction(context.Background(), keyed(half, body), transaction); err != nil {
			t.Fatal(err)
		}
		switch body {
		case "kept":
			err = transaction.Commit()
		case "dropped":
			err = transaction.RollBack()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	comes(t, buyer, "kept", "silent")
	if asked := checker.times("silent"); asked < 2 {
		t.Errorf("asked %d times", asked)
	}
	for range 2 {
		if messages := append(receive(t, consumer), receive(t, buyer)...); len(messages) > 0 {
			t.Errorf("arrived: %v", messages)
		}
	}
}

// TestSeveralAddressesInOneAccessPointAreNoneToThisClient: it makes one name of them for TLS, which is none. When that changes,
// host/docs/replication.md has to say so.
func TestSeveralAddressesInOneAccessPointAreNoneToThisClient(t *testing.T) {
	t.Parallel()
	c := startCluster(t, false)
	topic := unique("all")
	c.leader(t, nil).createTopic(t, topic, `{"type":"normal","queues":2}`)
	var points []string
	for _, n := range c.nodes {
		points = append(points, n.GRPC)
	}
	everywhere := broker{GRPC: strings.Join(points, ";")}
	if producer, err := everywhere.sender([]string{topic}); err == nil {
		_ = producer.GracefulStop()
		t.Error("it started")
	} else if !strings.Contains(err.Error(), "create grpc conn failed") {
		t.Error(err)
	}
}
