// The official Go client in its default configuration: TLS, and whatever certificate the broker shows.
// The same port serves the plaintext clients of the other suites.
package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
	"github.com/apache/rocketmq-clients/golang/v5/credentials"
)

const startDeadline = 30 * time.Second

type broker struct {
	GRPC string `json:"grpc"`
	HTTP string `json:"http"`
	PID  int    `json:"pid"`
}

// allBytes holds every byte value and text that is not ASCII.
func allBytes() []byte {
	var all []byte
	for value := range 256 {
		all = append(all, byte(value))
	}
	return append(all, "Grüße, 订单"...)
}

func binary(t *testing.T) string {
	if chosen := os.Getenv("VOUCH_BIN"); chosen != "" {
		return chosen
	}
	target := os.Getenv("CARGO_TARGET_DIR")
	if target == "" {
		target = "../../../target"
	}
	path, err := filepath.Abs(filepath.Join(target, "release", "vouch"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func startBroker(t *testing.T) broker {
	t.Helper()
	folder := t.TempDir()
	data := filepath.Join(folder, "data")
	command := exec.Command(binary(t), "serve", "--data-dir", data, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0",
		// Small: by itself a node takes 64 MiB ahead of its log, and 256 MiB for snapshots.
		"--zero-ahead", "1MiB", "--snapshot-every", "16MiB")
	output, err := os.Create(filepath.Join(folder, "vouch.log"))
	if err != nil {
		t.Fatal(err)
	}
	command.Stdout, command.Stderr = output, output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		if err := command.Wait(); err != nil {
			log, _ := os.ReadFile(output.Name())
			t.Errorf("SIGTERM must end the broker with status 0: %v\n%s", err, log)
		}
	})
	var started broker
	waitUntil(t, "the broker is ready", startDeadline, func() bool {
		raw, err := os.ReadFile(filepath.Join(data, "endpoints.json"))
		if err != nil || json.Unmarshal(raw, &started) != nil || started.PID != command.Process.Pid {
			return false
		}
		answer, err := http.Get("http://" + started.HTTP + "/readyz")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	return started
}

func waitUntil(t *testing.T, what string, deadline time.Duration, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %s still not so: %s", deadline, what)
		}
	}
}

func (b broker) createTopic(t *testing.T, name, settings string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodPut, "http://"+b.HTTP+"/v1/topics/"+name, strings.NewReader(settings))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("content-type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		body, _ := io.ReadAll(answer.Body)
		t.Fatalf("PUT topic %s: %s %s", name, answer.Status, body)
	}
}

func (b broker) config(group string) *rmq.Config {
	return &rmq.Config{Endpoint: b.GRPC, ConsumerGroup: group, Credentials: &credentials.SessionCredentials{}}
}

func (b broker) producer(t *testing.T, topic string, options ...rmq.ProducerOption) rmq.Producer {
	t.Helper()
	producer, err := rmq.NewProducer(b.config(""), append(options, rmq.WithTopics(topic))...)
	if err != nil {
		t.Fatal(err)
	}
	if err := producer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = producer.GracefulStop() })
	return producer
}

func (b broker) consumer(t *testing.T, topic string) rmq.SimpleConsumer {
	t.Helper()
	consumer, err := rmq.NewSimpleConsumer(b.config(topic), rmq.WithSimpleAwaitDuration(2*time.Second),
		rmq.WithSimpleSubscriptionExpressions(map[string]*rmq.FilterExpression{topic: rmq.SUB_ALL}))
	if err != nil {
		t.Fatal(err)
	}
	if err := consumer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = consumer.GracefulStop() })
	return consumer
}

// receive returns what one poll brings; this client reports "nothing" as an error with code 40401.
func receive(t *testing.T, consumer rmq.SimpleConsumer) []*rmq.MessageView {
	t.Helper()
	received, err := consumer.Receive(context.Background(), 16, 30*time.Second)
	var status *rmq.ErrRpcStatus
	if errors.As(err, &status) && status.Code == 40401 {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return received
}

func receiveOne(t *testing.T, consumer rmq.SimpleConsumer) *rmq.MessageView {
	t.Helper()
	var received []*rmq.MessageView
	waitUntil(t, "a message arrives", 30*time.Second, func() bool {
		received = receive(t, consumer)
		return len(received) > 0
	})
	if len(received) != 1 {
		t.Fatalf("wanted one message, got %d", len(received))
	}
	if err := consumer.Ack(context.Background(), received[0]); err != nil {
		t.Fatal(err)
	}
	return received[0]
}

func TestMain(m *testing.M) {
	// The client logs below the home folder.
	home, err := os.MkdirTemp("", "vouch-go-home-")
	if err == nil {
		os.Setenv("rocketmq.client.logRoot", home)
		rmq.ResetLogger()
	}
	if !rmq.EnableSsl {
		fmt.Println("this suite is about the default configuration, which is TLS")
		os.Exit(1)
	}
	noteAnswersToAcks()
	status := m.Run()
	os.RemoveAll(home)
	os.Exit(status)
}

func TestNormalMessagesOverTLS(t *testing.T) {
	b := startBroker(t)
	b.createTopic(t, "go-normal", `{"type":"normal"}`)
	producer, consumer := b.producer(t, "go-normal"), b.consumer(t, "go-normal")
	message := &rmq.Message{Topic: "go-normal", Body: allBytes()}
	message.SetTag("paid")
	message.SetKeys("order-1", "müller")
	message.AddProperty("größe", "süß")
	receipts, err := producer.Send(context.Background(), message)
	if err != nil {
		t.Fatal(err)
	}
	received := receiveOne(t, consumer)
	if received.GetMessageId() != receipts[0].MessageID {
		t.Errorf("sent %s, received %s", receipts[0].MessageID, received.GetMessageId())
	}
	if !bytes.Equal(received.GetBody(), allBytes()) || *received.GetTag() != "paid" ||
		fmt.Sprint(received.GetKeys()) != "[order-1 müller]" || received.GetProperties()["größe"] != "süß" {
		t.Errorf("not as it was sent: %v", received)
	}
	if again := receive(t, consumer); len(again) != 0 {
		t.Errorf("an acknowledged message came again: %v", again)
	}
}

func TestTransactionsOverTLS(t *testing.T) {
	b := startBroker(t)
	b.createTopic(t, "go-transaction", `{"type":"transaction","transaction":{"immunity":"1s","interval":"1s"}}`)
	checker := rmq.WithTransactionChecker(&rmq.TransactionChecker{
		Check: func(message *rmq.MessageView) rmq.TransactionResolution {
			if message.GetKeys()[0] == "orphan" {
				return rmq.COMMIT
			}
			return rmq.UNKNOWN
		},
	})
	producer, consumer := b.producer(t, "go-transaction", checker), b.consumer(t, "go-transaction")
	begin := func(key string) rmq.Transaction {
		transaction := producer.BeginTransaction()
		message := &rmq.Message{Topic: "go-transaction", Body: []byte(key)}
		message.SetKeys(key)
		if _, err := producer.SendWithTransaction(context.Background(), message, transaction); err != nil {
			t.Fatal(err)
		}
		return transaction
	}
	if err := begin("dropped").RollBack(); err != nil {
		t.Fatal(err)
	}
	if err := begin("kept").Commit(); err != nil {
		t.Fatal(err)
	}
	if received := receiveOne(t, consumer); string(received.GetBody()) != "kept" {
		t.Errorf("received %s", received.GetBody())
	}
	begin("orphan")
	if received := receiveOne(t, consumer); string(received.GetBody()) != "orphan" {
		t.Errorf("received %s", received.GetBody())
	}
}
