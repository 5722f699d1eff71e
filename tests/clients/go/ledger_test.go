// What producers were told, and what came to consumers: the one has to fit the other.
package clients

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
	v2 "github.com/apache/rocketmq-clients/golang/v5/protocol/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// refused is the answer of which is certain that nothing was stored.
const refused = "50002"

// expected is what a call may be told while leaders change: refused, nobody knows, or nothing since the node was killed.
var expected = []string{refused, "50400", "50401", "50402", codes.Unavailable.String(), codes.DeadlineExceeded.String(),
	codes.Canceled.String()}

// plan is what a producer does about a half message, and its checker answers in the end.
type plan string

const (
	plain          plan = "plain"
	commit         plan = "commit"
	rollback       plan = "rollback"
	silentCommit   plan = "silent commit"
	silentRollback plan = "silent rollback"
	silentLate     plan = "silent late"
)

var plans = []plan{commit, rollback, silentCommit, silentRollback, silentLate}

func (p plan) comes() bool { return p != rollback && p != silentRollback }

// told is what the broker answered, as its code; or how the call failed on its way.
func told(err error) string {
	var answered *rmq.ErrRpcStatus
	if errors.As(err, &answered) {
		return fmt.Sprint(answered.Code)
	}
	if transport, ok := status.FromError(err); ok {
		return transport.Code().String()
	}
	// The consumer of this client has words of its own for that.
	if errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "CODE=DEADLINE_EXCEEDED") {
		return codes.DeadlineExceeded.String()
	}
	return err.Error()
}

// answersToAcks is what the broker answered to acknowledgements, by their handles: this client keeps refusals to itself.
var answersToAcks sync.Map

// noteAnswersToAcks listens to all connections that clients make from now on.
func noteAnswersToAcks() {
	note := grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, request, answer any,
		connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		err := invoke(ctx, method, request, answer, connection, options...)
		if ack, isAck := request.(*v2.AckMessageRequest); isAck && err == nil {
			code := answer.(*v2.AckMessageResponse).GetStatus().GetCode()
			for _, each := range ack.GetEntries() {
				answersToAcks.Store(each.GetReceiptHandle(), code)
			}
		}
		return err
	})
	connect := rmq.NewRpcClient
	rmq.NewRpcClient = func(target string, options ...rmq.RpcClientOption) (rmq.RpcClient, error) {
		return connect(target, append(options, rmq.WithRpcClientConnOption(rmq.WithDialOptions(note)))...)
	}
}

// ack acknowledges, and returns what the broker answered.
func ack(consumer rmq.SimpleConsumer, message *rmq.MessageView) error {
	handle := message.GetReceiptHandle()
	if err := consumer.Ack(context.Background(), message); err != nil {
		return err
	}
	if code, answered := answersToAcks.Load(handle); answered && code.(v2.Code) != v2.Code_OK {
		return &rmq.ErrRpcStatus{Code: int32(code.(v2.Code))}
	}
	return nil
}

type send struct {
	body string
	plan plan
	// Its client tried it once: what the only answer says is about all of it.
	once         bool
	acknowledged bool
	failure      string
	messageID    string
}

func (s *send) String() string {
	return fmt.Sprintf("%s (%s, once: %t, acknowledged: %t %s)", s.body, s.plan, s.once, s.acknowledged, s.failure)
}

type delivery struct {
	group, body, messageID string
	attempt                int32
	// By a consumer that was told so.
	acknowledged bool
}

type ledger struct {
	sync.Mutex
	sends        map[string]*send
	deliveries   []*delivery
	errors       map[string]int
	acknowledged int
}

func newLedger() *ledger { return &ledger{sends: map[string]*send{}, errors: map[string]int{}} }

func (l *ledger) begins(body string, plan plan, once bool) *send {
	l.Lock()
	defer l.Unlock()
	l.sends[body] = &send{body: body, plan: plan, once: once}
	return l.sends[body]
}

func (l *ledger) ends(s *send, receipts []*rmq.SendReceipt, err error) {
	l.Lock()
	defer l.Unlock()
	if err != nil {
		s.failure = told(err)
		l.errors["send: "+s.failure]++
		return
	}
	s.acknowledged, s.messageID = true, receipts[0].MessageID
	l.acknowledged++
}

func (l *ledger) note(what string, err error) {
	l.Lock()
	defer l.Unlock()
	l.errors[what+": "+told(err)]++
}

func (l *ledger) delivered(group string, message *rmq.MessageView) *delivery {
	l.Lock()
	defer l.Unlock()
	came := &delivery{group, string(message.GetBody()), message.GetMessageId(), message.GetDeliveryAttempt(), false}
	l.deliveries = append(l.deliveries, came)
	return came
}

func (l *ledger) isAcknowledged(d *delivery) {
	l.Lock()
	defer l.Unlock()
	d.acknowledged = true
}

func (l *ledger) acknowledgedSends() int {
	l.Lock()
	defer l.Unlock()
	return l.acknowledged
}

func (l *ledger) of(group string) map[string][]*delivery {
	mine := map[string][]*delivery{}
	for _, each := range l.deliveries {
		if each.group == group {
			mine[each.body] = append(mine[each.body], each)
		}
	}
	return mine
}

// missing is what a group has to get and has not yet.
func (l *ledger) missing(group string) (missing []*send) {
	l.Lock()
	defer l.Unlock()
	return l.without(group)
}

func (l *ledger) without(group string) (missing []*send) {
	came := l.of(group)
	for _, each := range l.sends {
		if each.acknowledged && each.plan.comes() && came[each.body] == nil {
			missing = append(missing, each)
		}
	}
	return missing
}

// faults is everything that should not be, in sentences.
func (l *ledger) faults(groups []string) (faults []string) {
	l.Lock()
	defer l.Unlock()
	fault := func(form string, arguments ...any) { faults = append(faults, fmt.Sprintf(form, arguments...)) }
	for _, group := range groups {
		for _, each := range l.without(group) {
			fault("%s never got %s", group, each)
		}
		for body, all := range l.of(group) {
			sent := l.sends[body]
			if sent == nil {
				fault("%s got %s, which nobody sent", group, body)
				continue
			}
			if !sent.plan.comes() || sent.once && sent.failure == refused {
				fault("%s got %s, which nobody may get", group, sent)
			}
			slices.SortFunc(all, func(one, other *delivery) int { return int(one.attempt - other.attempt) })
			last := all[len(all)-1].attempt
			for index, each := range all {
				if each.messageID != all[0].messageID || sent.messageID != "" && each.messageID != sent.messageID {
					fault("%s got %s under several ids", group, sent)
				}
				if index > 0 && each.attempt == all[index-1].attempt {
					fault("%s got %s more than once in attempt %d", group, sent, each.attempt)
				}
				if each.acknowledged && each.attempt < last {
					fault("%s got %s in attempt %d though attempt %d was acknowledged", group, sent, last, each.attempt)
				}
			}
		}
	}
	for what, times := range l.errors {
		if _, code, _ := strings.Cut(what, ": "); !slices.Contains(expected, code) {
			fault("an unexpected answer, %d times: %s", times, what)
		}
	}
	return faults
}

func (l *ledger) summary(groups []string) string {
	l.Lock()
	defer l.Unlock()
	count := map[string]int{}
	for _, each := range l.sends {
		outcome := "acknowledged"
		if !each.acknowledged {
			outcome = each.failure
		}
		count[fmt.Sprintf("%s, once %t, %s", each.plan, each.once, outcome)]++
	}
	came := map[string]string{}
	for _, group := range groups {
		mine, again := l.of(group), 0
		for _, all := range mine {
			again += len(all) - 1
		}
		came[group] = fmt.Sprintf("%d, again %d", len(mine), again)
	}
	return fmt.Sprintf("sends %v, came %v, errors %v", count, came, l.errors)
}
