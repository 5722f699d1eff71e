// What plugins/README.md shows for Go, to the letter, beside what an application has already.
package clients

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"log"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

// Order is what a customer wants, and the topic that is told of it.
type Order struct {
	Topic, ID string
	Amount    int
}

func orderMessage(order Order) *rmq.Message {
	body, err := json.Marshal(order)
	if err != nil {
		panic(err)
	}
	message := &rmq.Message{Topic: order.Topic, Body: body}
	message.SetKeys(order.ID)
	return message
}

// shown in plugins/README.md: begin

// errTooLate: the broker was told that this order was not placed, and now it cannot be.
var errTooLate = errors.New("too late")

func placeOrder(ctx context.Context, producer rmq.Producer, database *sql.DB, order Order) error {
	transaction := producer.BeginTransaction()
	receipts, err := producer.SendWithTransaction(ctx, orderMessage(order), transaction)
	if err != nil {
		return err
	}
	shop, err := database.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer shop.Rollback() // does nothing after COMMIT
	_, err = shop.ExecContext(ctx, "insert into vouch_fence (fence_key, outcome) values ($1, 'committed')", receipts[0].MessageID)
	var refused interface{ SQLState() string }
	if errors.As(err, &refused) && refused.SQLState() == "23505" {
		return errTooLate
	}
	if err != nil {
		return err
	}
	_, err = shop.ExecContext(ctx, "insert into orders (id, amount) values ($1, $2)", order.ID, order.Amount)
	if err != nil {
		return err
	}
	if err := shop.Commit(); err != nil {
		return err
	}
	if err := transaction.Commit(); err != nil {
		log.Printf("order %s is placed, and a check will end its transaction: %v", order.ID, err)
	}
	return nil
}

// shown in plugins/README.md: end
