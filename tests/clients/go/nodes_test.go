// Three real broker processes that are one cluster, made as an operator does it, and port mappings in front of them.
package clients

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

const (
	settlesWithin = 30 * time.Second
	established   = "01"
)

var givenPorts sync.Map

// freeAddress gives a port below those that the system gives to whoever asks for any: nobody gets that of a node that is down.
func freeAddress() string {
	for {
		address := fmt.Sprintf("127.0.0.1:%d", 15_000+rand.IntN(17_000))
		free, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		free.Close()
		if _, given := givenPorts.LoadOrStore(address, true); !given {
			return address
		}
	}
}

func portOf(address string, base int) uint16 {
	port, _ := strconv.ParseUint(address[strings.LastIndex(address, ":")+1:], base, 16)
	return uint16(port)
}

// portMapping stands between clients and a node whose own port they do not reach: another port, which leads there.
type portMapping struct {
	door    net.Listener
	behind  string
	own     sync.Map
	carried atomic.Int32
}

func mapPort(t *testing.T, behind string) *portMapping {
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { door.Close() })
	mapping := &portMapping{door: door, behind: behind}
	go func() {
		for {
			client, err := door.Accept()
			if err != nil {
				return
			}
			go mapping.carry(client)
		}
	}()
	return mapping
}

func (m *portMapping) carry(client net.Conn) {
	defer client.Close()
	node, err := net.Dial("tcp", m.behind)
	if err != nil {
		return
	}
	defer node.Close()
	m.own.Store(portOf(node.LocalAddr().String(), 10), true)
	m.carried.Add(1)
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{client, node}, {node, client}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			ended <- struct{}{}
		}()
	}
	<-ended
}

// past returns ports of clients that found the way to the node's own port, past this.
func (m *portMapping) past() (ports []uint16) {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		raw, _ := os.ReadFile(table)
		for line := range strings.Lines(string(raw)) {
			columns := strings.Fields(line)
			if len(columns) < 4 || columns[3] != established || portOf(columns[2], 16) != portOf(m.behind, 10) {
				continue
			}
			if port := portOf(columns[1], 16); !m.isOwn(port) {
				ports = append(ports, port)
			}
		}
	}
	return ports
}

func (m *portMapping) isOwn(port uint16) bool {
	_, own := m.own.Load(port)
	return own
}

// node is one of a cluster; clients reach it at its GRPC, which is its own port unless there is a port mapping.
type node struct {
	broker
	id      int
	folder  string
	peer    string
	own     string
	mapping *portMapping
	process *exec.Cmd
	ended   chan error
}

func (n *node) String() string { return fmt.Sprintf("node %d", n.id) }

func (n *node) launch(t *testing.T, more ...string) {
	t.Helper()
	data := filepath.Join(n.folder, "data")
	arguments := append([]string{
		"serve", "--data-dir", data, "--grpc-addr", n.own, "--http-addr", n.HTTP,
		// Leases of seconds, so that tests need not wait for one of ten.
		"--receive-invisible-min", "1s",
		"--peer-addr", n.peer, "--peer-insecure", "--grpc-advertise", n.GRPC,
		// Small, so that many clusters fit on a disk, however full that is.
		"--segment-size", "4MiB", "--zero-ahead", "1MiB", "--snapshot-every", "16MiB", "--disk-high-water", "99",
	}, more...)
	n.process = exec.Command(binary(t), arguments...)
	output, err := os.OpenFile(n.output(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	n.process.Stdout, n.process.Stderr = output, output
	if err := n.process.Start(); err != nil {
		t.Fatal(err)
	}
	process, ended := n.process, make(chan error, 1)
	n.ended = ended
	go func() { ended <- process.Wait() }()
	waitUntil(t, fmt.Sprintf("%s has its ports", n), startDeadline, func() bool {
		var told broker
		raw, err := os.ReadFile(filepath.Join(data, "endpoints.json"))
		return err == nil && json.Unmarshal(raw, &told) == nil && told.PID == process.Process.Pid
	})
}

func (n *node) start(t *testing.T) {
	t.Helper()
	n.launch(t)
	waitUntil(t, fmt.Sprintf("%s is ready", n), startDeadline, n.ready)
}

func (n *node) ready() bool {
	answer, err := http.Get("http://" + n.HTTP + "/readyz")
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

func (n *node) output() string { return filepath.Join(n.folder, "vouch.log") }

// kill is kill -9: nothing is flushed, nobody is told.
func (n *node) kill() {
	_ = n.process.Process.Kill()
	<-n.ended
	n.process = nil
}

func (n *node) get(path string, into any) error {
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get("http://" + n.HTTP + path)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, answer.Status)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

type clusterStatus struct {
	Leader int    `json:"leader"`
	Term   int    `json:"term"`
	Voters []int  `json:"voters"`
	Nodes  []peer `json:"nodes"`
}

type peer struct {
	ID       int    `json:"id"`
	Heard    any    `json:"heard"`
	LagBytes *int64 `json:"lag_bytes"`
}

// status is `/v1/cluster` as this node tells it; nil where it does not answer.
func (n *node) status() *clusterStatus {
	var status clusterStatus
	if n.process == nil || n.get("/v1/cluster", &status) != nil {
		return nil
	}
	return &status
}

// openTransactions counts those of a topic that have not ended.
func (n *node) openTransactions(topic string) int {
	open := 0
	for _, state := range []string{"open", "waiting_for_checker", "parked"} {
		var list struct {
			Items []any `json:"items"`
		}
		if err := n.get("/v1/transactions?state="+state+"&topic="+topic, &list); err != nil {
			return -1
		}
		open += len(list.Items)
	}
	return open
}

type cluster struct {
	nodes []*node
}

// startCluster starts nodes 1 to 3; mapped: clients reach each of them only through another port than its own.
func startCluster(t *testing.T, mapped bool) *cluster {
	t.Helper()
	folder := t.TempDir()
	c := &cluster{}
	t.Cleanup(func() { c.stop(t) })
	for id := 1; id <= 3; id++ {
		n := &node{id: id, folder: filepath.Join(folder, fmt.Sprintf("node-%d", id)), peer: freeAddress(), own: freeAddress()}
		n.HTTP, n.GRPC = freeAddress(), n.own
		if mapped {
			n.mapping = mapPort(t, n.own)
			n.GRPC = n.mapping.door.Addr().String()
		}
		if err := os.MkdirAll(n.folder, 0o755); err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, n)
	}
	c.nodes[0].start(t)
	for _, n := range c.nodes[1:] {
		token := n.folder + ".token"
		add := exec.Command(binary(t), "cluster", "add", "--token-file", token, "--http", c.nodes[0].HTTP)
		if told, err := add.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v %s", add, err, told)
		}
		n.launch(t, "--join", c.nodes[0].peer, "--token-file", token)
	}
	waitUntil(t, "all vote", settlesWithin, func() bool {
		return !slices.ContainsFunc(c.nodes, func(n *node) bool {
			status := n.status()
			return status == nil || len(status.Voters) != 3 || !n.ready()
		})
	})
	return c
}

// leads returns the node that says of itself that it leads, of the latest term that anybody knows; or nil.
func (c *cluster) leads() (leader *node) {
	latest := -1
	for _, n := range c.nodes {
		status := n.status()
		if status == nil || status.Term < latest {
			continue
		}
		if status.Term > latest {
			leader = nil
		}
		if status.Leader == n.id {
			leader = n
		}
		latest = status.Term
	}
	return leader
}

// leader returns whoever leads and is not `other`; it waits for it.
func (c *cluster) leader(t *testing.T, other *node) (leader *node) {
	t.Helper()
	waitUntil(t, fmt.Sprintf("a node leads that is not %v", other), settlesWithin, func() bool {
		leader = c.leads()
		return leader != nil && leader != other
	})
	return leader
}

func (c *cluster) followers(t *testing.T) []*node {
	leader := c.leader(t, nil)
	return slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return n == leader })
}

// caughtUp waits until all nodes follow the one that leads, closely.
func (c *cluster) caughtUp(t *testing.T) {
	t.Helper()
	waitUntil(t, "all nodes follow", settlesWithin, func() bool {
		leader := c.leads()
		if leader == nil {
			return false
		}
		status := leader.status()
		return status != nil && !slices.ContainsFunc(status.Nodes, func(p peer) bool {
			return p.ID != leader.id && (p.Heard == nil || p.LagBytes == nil || *p.LagBytes >= 1<<20)
		})
	})
}

// stop stops all, whoever leads first; each must stop by itself, and none may have panicked.
func (c *cluster) stop(t *testing.T) {
	leader := c.leads()
	order := slices.Clone(c.nodes)
	slices.SortStableFunc(order, func(one, other *node) int {
		switch {
		case one == leader:
			return -1
		case other == leader:
			return 1
		}
		return 0
	})
	for _, n := range order {
		if n.process == nil {
			continue
		}
		_ = n.process.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-n.ended:
			if err != nil {
				t.Errorf("SIGTERM must end %s with status 0: %v", n, err)
			}
		case <-time.After(15 * time.Second):
			t.Errorf("%s did not stop within 15 s of SIGTERM", n)
			_ = n.process.Process.Kill()
		}
	}
	for _, n := range c.nodes {
		log, _ := os.ReadFile(n.output())
		if strings.Contains(string(log), "panicked at") {
			t.Errorf("%s panicked", n)
		}
		if t.Failed() {
			t.Logf("----- %s -----\n%s", n, log[max(0, len(log)-10_000):])
		}
	}
}

// pushConsumer consumes with a listener that is content with all of it.
func (b broker) pushConsumer(group string, topics []string, listen func(*rmq.MessageView)) (rmq.PushConsumer, error) {
	consumer, err := rmq.NewPushConsumer(b.config(group), rmq.WithPushAwaitDuration(2*time.Second),
		rmq.WithPushSubscriptionExpressions(all(topics)),
		rmq.WithPushMessageListener(&rmq.FuncMessageListener{Consume: func(message *rmq.MessageView) rmq.ConsumerResult {
			listen(message)
			return rmq.SUCCESS
		}}))
	if err != nil {
		return nil, err
	}
	return consumer, consumer.Start()
}

func all(topics []string) map[string]*rmq.FilterExpression {
	expressions := map[string]*rmq.FilterExpression{}
	for _, topic := range topics {
		expressions[topic] = rmq.SUB_ALL
	}
	return expressions
}
