// The lines that a service adds for the fence, as plugins/README.md shows them for Go, on a real database: what they promise when
// the service dies, comes too late, or never hears what became of its COMMIT.
package clients

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
)

// Said by the script that runs PostgreSQL where that is not installed.
const notInstalled = 77

// The block of the document and the region of the source that is compiled here.
var (
	shown    = regexp.MustCompile("(?s)<!-- fence: go -->\n```go\n(.*?)```")
	compiled = regexp.MustCompile("(?s)// shown in plugins/README.md: begin\n\n(.*?)\n// shown in plugins/README.md: end")
)

func only(t *testing.T, file string, pattern *regexp.Regexp) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := pattern.FindAllSubmatch(text, -1)
	if len(found) != 1 {
		t.Fatalf("%s shows the lines for Go %d times", file, len(found))
	}
	return string(found[0][1])
}

// database is a server with databases of a shop and of the fence.
type database struct {
	port, password, socket string
}

// startDatabase runs one as long as its standard input is open: however this process dies, it goes with it.
func startDatabase(t *testing.T) database {
	t.Helper()
	server := exec.Command("../python/postgres.sh", binary(t))
	server.Stderr = os.Stderr
	word, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	said, _ := bufio.NewReader(output).ReadString('\n')
	fields := strings.Fields(said)
	if len(fields) != 4 || fields[0] != "ready" {
		_ = server.Wait()
		if server.ProcessState.ExitCode() == notInstalled {
			t.Skipf("LEFT OUT: the fence in Go. %s", said)
		}
		t.Fatalf("PostgreSQL: %s", said)
	}
	t.Cleanup(func() {
		_ = word.Close()
		_ = server.Wait()
	})
	return database{port: fields[1], password: fields[2], socket: fields[3]}
}

// shop is one of its databases, by one of the two drivers.
type shop struct {
	*sql.DB
	url string
}

func (d database) open(t *testing.T, driver, name string) shop {
	t.Helper()
	address := fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%s/%s?sslmode=disable", d.password, d.port, name)
	opened, err := sql.Open(driver, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	return shop{opened, fmt.Sprintf("postgres://postgres@localhost/%s?socket=%s", name, d.socket)}
}

func (s shop) ask(t *testing.T, statement string, values ...any) []string {
	t.Helper()
	rows, err := s.Query(statement, values...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var answers []string
	for rows.Next() {
		var answer string
		if err := rows.Scan(&answer); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, answer)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return answers
}

func (s shop) has(t *testing.T, order Order) bool {
	return slices.Equal(s.ask(t, "select amount from orders where id = $1", order.ID), []string{fmt.Sprint(order.Amount)})
}

func (s shop) fence(t *testing.T, receipt *rmq.SendReceipt) string {
	return strings.Join(s.ask(t, "select outcome from vouch_fence where fence_key = $1", receipt.MessageID), " ")
}

func (s shop) hasNoOpenTransaction(t *testing.T) bool {
	return len(s.ask(t, `select query from pg_stat_activity
		where datname = current_database() and state like 'idle in transaction%'`)) == 0
}

func (s shop) endsTheSessionThatWaitsInCommit(t *testing.T) bool {
	return len(s.ask(t, `select pg_terminate_backend(pid) from pg_stat_activity
		where datname = current_database() and wait_event = 'SyncRep'`)) > 0
}

// halting is a producer whose service is held up: when its half message is stored, or before it ends the transaction.
type halting struct {
	rmq.Producer
	halfStored   func(*rmq.SendReceipt)
	beforeTheEnd func() error
	receipt      *rmq.SendReceipt
}

type haltingTransaction struct {
	rmq.Transaction
	beforeTheEnd func() error
}

func (h *halting) BeginTransaction() rmq.Transaction {
	return &haltingTransaction{h.Producer.BeginTransaction(), h.beforeTheEnd}
}

func (h *halting) SendWithTransaction(ctx context.Context, half *rmq.Message, transaction rmq.Transaction) ([]*rmq.SendReceipt, error) {
	receipts, err := h.Producer.SendWithTransaction(ctx, half, transaction.(*haltingTransaction).Transaction)
	if err == nil {
		h.receipt = receipts[0]
		if h.halfStored != nil {
			h.halfStored(h.receipt)
		}
	}
	return receipts, err
}

func (t *haltingTransaction) Commit() error {
	if t.beforeTheEnd != nil {
		if err := t.beforeTheEnd(); err != nil {
			return err
		}
	}
	return t.Transaction.Commit()
}

func (b broker) call(t *testing.T, method, path, contentType string, body io.Reader) []byte {
	t.Helper()
	request, err := http.NewRequest(method, "http://"+b.HTTP+path, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("content-type", contentType)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s %s %v", method, path, answer.Status, said, err)
	}
	return said
}

func (b broker) pushSQLCheckback(t *testing.T) {
	t.Helper()
	dist := os.Getenv("VOUCH_PLUGIN_DIST")
	if dist == "" {
		dist = "../../../plugins/dist"
	}
	component, err := os.Open(filepath.Join(dist, "sql-checkback.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	defer component.Close()
	b.call(t, http.MethodPut, "/v1/plugins/sql-checkback/tags/go", "application/wasm", component)
}

func (b broker) closeTheFenceAfter(t *testing.T, age, topic string, shop shop) {
	t.Helper()
	b.call(t, http.MethodPut, "/v1/bindings/"+topic, "application/json", strings.NewReader(fmt.Sprintf(
		`{"plugin":"sql-checkback:go","topics":[%q],"config":{"database":"shop","fence-after":%q},
		"grants":{"sql":{"shop":{"url":%q,"fence":"vouch_fence","write":true}}}}`, topic, age, shop.url)))
}

func (b broker) neverAsks(t *testing.T, topic string) {
	t.Helper()
	b.createTopic(t, topic, `{"type":"transaction","transaction":{"immunity":"1h"}}`)
}

// ended tells how a transaction ended, and whether a check did that.
func (b broker) ended(t *testing.T, receipt *rmq.SendReceipt) string {
	t.Helper()
	var transaction struct {
		State      string `json:"state"`
		LastAnswer struct {
			By string `json:"by"`
		} `json:"last_answer"`
	}
	said := b.call(t, http.MethodGet, "/v1/transactions/"+receipt.TransactionId, "application/json", nil)
	if err := json.Unmarshal(said, &transaction); err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(transaction.LastAnswer.By, "component ") {
		return transaction.State + " by a check"
	}
	return transaction.State
}

func (b broker) ends(t *testing.T, receipt *rmq.SendReceipt, how string) {
	t.Helper()
	waitUntil(t, "the transaction is "+how, 25*time.Second, func() bool { return b.ended(t, receipt) == how })
}

func (b broker) arrivesOnce(t *testing.T, topic string, receipt *rmq.SendReceipt, order Order) {
	t.Helper()
	consumer := b.consumer(t, topic)
	received := receiveOne(t, consumer)
	var arrived Order
	if err := json.Unmarshal(received.GetBody(), &arrived); err != nil || arrived != order || received.GetMessageId() != receipt.MessageID {
		t.Errorf("received %s %s, wanted %s %v", received.GetMessageId(), received.GetBody(), receipt.MessageID, order)
	}
	// Polls for the whole time that this consumer waits.
	if again := receive(t, consumer); len(again) != 0 {
		t.Errorf("it came again: %v", again)
	}
}

func TestWhatTheDocumentShowsIsWhatIsCompiledOverTLS(t *testing.T) {
	document, source := only(t, "../../../plugins/README.md", shown), only(t, "placing_test.go", compiled)
	if document != source {
		t.Errorf("plugins/README.md shows\n%s\nand placing_test.go has\n%s", document, source)
	}
}

// All in one, as they share a server and a broker.
func TestAServiceWithTheFenceOverTLS(t *testing.T) {
	database, b := startDatabase(t), startBroker(t)
	b.pushSQLCheckback(t)
	// They wait most of the time: all at once, however few processors there are.
	var all sync.WaitGroup
	defer all.Wait()
	topics := 0
	// A topic that is asked about each second; the fence is closed for what is very old only.
	placing := func(name, driver, tables string, run func(t *testing.T, topic string, shop shop, producer rmq.Producer)) {
		topics++
		topic := fmt.Sprintf("go-fence-%d", topics)
		all.Go(func() {
			t.Run(name, func(t *testing.T) {
				shop := database.open(t, driver, tables)
				b.createTopic(t, topic, `{"type":"transaction","transaction":{"immunity":"1s","interval":"1s","max_checks":1000}}`)
				b.closeTheFenceAfter(t, "60s", topic, shop)
				checker := rmq.WithTransactionChecker(&rmq.TransactionChecker{
					Check: func(*rmq.MessageView) rmq.TransactionResolution { return rmq.UNKNOWN },
				})
				run(t, topic, shop, b.producer(t, topic, checker))
			})
		})
	}
	ctx := context.Background()
	// What is left: of the order, of its row of the fence, and how its transaction ended.
	leaves := func(t *testing.T, shop shop, order Order, receipt *rmq.SendReceipt, has bool, fence, ended string) {
		t.Helper()
		if is := shop.has(t, order); is != has {
			t.Errorf("the order is there: %v", is)
		}
		if is := shop.fence(t, receipt); is != fence {
			t.Errorf("its row of the fence is %q, and not %q", is, fence)
		}
		b.ends(t, receipt, ended)
	}

	placing("an order that is placed has its row of the fence and arrives once", "pgx", "shop",
		func(t *testing.T, topic string, shop shop, producer rmq.Producer) {
			b.neverAsks(t, topic)
			service, order := &halting{Producer: producer}, Order{topic, "order-" + topic, 20}
			if err := placeOrder(ctx, service, shop.DB, order); err != nil {
				t.Fatal(err)
			}
			leaves(t, shop, order, service.receipt, true, "committed", "committed")
			b.arrivesOnce(t, topic, service.receipt, order)
		})

	placing("an order whose service died behind COMMIT is committed by its row", "pgx", "shop",
		func(t *testing.T, topic string, shop shop, producer rmq.Producer) {
			service, order := &halting{Producer: producer}, Order{topic, "order-" + topic, 20}
			service.beforeTheEnd = func() error { return errors.New("died") }
			if err := placeOrder(ctx, service, shop.DB, order); err != nil {
				t.Fatal(err)
			}
			b.arrivesOnce(t, topic, service.receipt, order)
			leaves(t, shop, order, service.receipt, true, "committed", "committed by a check")
		})

	// With the trigger it is that which refuses the row, without it the primary key; and two drivers tell of it.
	for _, driver := range []string{"pgx", "postgres"} {
		for _, tables := range []string{"shop", "shop_without_trigger"} {
			placing(fmt.Sprintf("an order that comes after the check is undone and a new try is placed, %s %s", driver, tables),
				driver, tables, func(t *testing.T, topic string, shop shop, producer rmq.Producer) {
					b.closeTheFenceAfter(t, "1s", topic, shop)
					late, order := &halting{Producer: producer}, Order{topic, "order-" + topic, 20}
					late.halfStored = func(receipt *rmq.SendReceipt) { b.ends(t, receipt, "rolled_back by a check") }
					if err := placeOrder(ctx, late, shop.DB, order); !errors.Is(err, errTooLate) {
						t.Fatalf("it was not refused: %v", err)
					}
					leaves(t, shop, order, late.receipt, false, "rolled_back", "rolled_back by a check")
					waitUntil(t, "no transaction is left open", startDeadline, func() bool { return shop.hasNoOpenTransaction(t) })
					b.neverAsks(t, topic)
					again := &halting{Producer: producer}
					if err := placeOrder(ctx, again, shop.DB, order); err != nil {
						t.Fatal(err)
					}
					leaves(t, shop, order, again.receipt, true, "committed", "committed")
					b.arrivesOnce(t, topic, again.receipt, order)
				})
		}
	}

	placing("a COMMIT whose answer is lost is no rollback", "pgx", "shop",
		func(t *testing.T, topic string, shop shop, producer rmq.Producer) {
			service, order := &halting{Producer: producer}, Order{topic, "unanswered-" + topic, 20}
			told := make(chan error, 1)
			go func() { told <- placeOrder(ctx, service, shop.DB, order) }()
			waitUntil(t, "COMMIT waits", startDeadline, func() bool { return shop.endsTheSessionThatWaitsInCommit(t) })
			if err := <-told; err == nil {
				t.Fatal("COMMIT was answered")
			}
			b.arrivesOnce(t, topic, service.receipt, order)
			leaves(t, shop, order, service.receipt, true, "committed", "committed by a check")
		})

	placing("a COMMIT that never happened is found out by the check", "pgx", "shop",
		func(t *testing.T, topic string, shop shop, producer rmq.Producer) {
			service, order := &halting{Producer: producer}, Order{topic, "lost-" + topic, 20}
			if err := placeOrder(ctx, service, shop.DB, order); err == nil {
				t.Fatal("COMMIT was answered")
			}
			b.closeTheFenceAfter(t, "1s", topic, shop)
			b.ends(t, service.receipt, "rolled_back by a check")
			leaves(t, shop, order, service.receipt, false, "rolled_back", "rolled_back by a check")
			if received := receive(t, b.consumer(t, topic)); len(received) != 0 {
				t.Errorf("it arrived: %v", received)
			}
		})
}
