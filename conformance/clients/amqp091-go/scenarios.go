// The twenty scenarios in amqp091-go.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	neturl "net/url"
	"slices"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

var scenarios = []scenario{
	{"hello", hello}, {"work_queue", workQueue}, {"priorities", priorities}, {"pubsub", pubsub},
	{"routing", routing}, {"topics", topics}, {"headers", headers}, {"rpc", rpc}, {"confirms", confirms},
	{"returns", returns}, {"get", get}, {"nack_requeue", nackRequeue}, {"reject", reject}, {"recover", recoverUnacked},
	{"tx", tx}, {"exclusive_autodelete", exclusiveAutodelete}, {"big_message", bigMessage},
	{"consumer_cancel", consumerCancel}, {"bad_credentials", badCredentials}, {"worker_killed", workerKilled},
}

// bench is one connection, and the names that a scenario makes on it.
type bench struct {
	*amqp.Connection
	url               string
	queues, exchanges []string
}

func newBench(url string) *bench {
	return &bench{Connection: must(amqp.Dial(url)), url: url}
}

// delete closes the connection and deletes the names.
func (b *bench) delete() {
	_ = b.Close() // the scenario may have closed it
	connection := must(amqp.Dial(b.url))
	defer connection.Close()
	channel := must(connection.Channel())
	for _, queue := range b.queues {
		must(channel.QueueDelete(queue, false, false, false))
	}
	for _, exchange := range b.exchanges {
		check(channel.ExchangeDelete(exchange, false, false))
	}
}

func (b *bench) channel() *amqp.Channel {
	return must(b.Channel())
}

// queue declares a queue of a new name.
func (b *bench) queue(channel *amqp.Channel, arguments amqp.Table) string {
	queue := must(channel.QueueDeclare(unique("queue"), false, false, false, false, arguments))
	b.queues = append(b.queues, queue.Name)
	return queue.Name
}

// exchange declares an exchange of a new name.
func (b *bench) exchange(channel *amqp.Channel, kind string) string {
	name := unique(kind)
	check(channel.ExchangeDeclare(name, kind, false, false, false, false, nil))
	b.exchanges = append(b.exchanges, name)
	return name
}

// waitUntilGone asks for the queue until the broker answers 404.
func (b *bench) waitUntilGone(queue string) {
	for {
		channel := b.channel()
		_, err := channel.QueueDeclarePassive(queue, false, false, false, false, nil)
		if err != nil {
			same(code(err), amqp.NotFound)
			return
		}
		check(channel.Close())
		time.Sleep(5 * time.Millisecond)
	}
}

func code(err error) int {
	var reply *amqp.Error
	if !errors.As(err, &reply) {
		fail("%v is not an answer of the broker", err)
	}
	return reply.Code
}

func publish(channel *amqp.Channel, exchange, key string, message amqp.Publishing) {
	check(channel.PublishWithContext(context.Background(), exchange, key, false, false, message))
}

func send(channel *amqp.Channel, queue string, bodies ...string) {
	for _, body := range bodies {
		publish(channel, "", queue, amqp.Publishing{Body: []byte(body)})
	}
}

func consume(channel *amqp.Channel, queue string, autoAck bool) <-chan amqp.Delivery {
	return must(channel.Consume(queue, "", autoAck, false, false, false, nil))
}

func next(deliveries <-chan amqp.Delivery) amqp.Delivery {
	delivery, open := <-deliveries
	if !open {
		fail("the consumer ended")
	}
	return delivery
}

// take is the next messages of a queue, acknowledged; prefetch and a late ack leave all others in the queue.
func take(channel *amqp.Channel, queue string, count int) (messages []amqp.Delivery) {
	tag := unique("consumer")
	check(channel.Qos(count, 0, false))
	deliveries := must(channel.Consume(queue, tag, false, false, false, false, nil))
	for range count {
		messages = append(messages, next(deliveries))
	}
	check(channel.Cancel(tag, false))
	check(messages[count-1].Ack(true))
	return messages
}

func bodies(messages []amqp.Delivery) (bodies []string) {
	for _, message := range messages {
		bodies = append(bodies, string(message.Body))
	}
	return bodies
}

// rest is what the queue still has, taken out by basic.get, which comes after all this channel did before.
func rest(channel *amqp.Channel, queue string) []string {
	var messages []amqp.Delivery
	for {
		message, ok, err := channel.Get(queue, true)
		check(err)
		if !ok {
			return bodies(messages)
		}
		messages = append(messages, message)
	}
}

func pull(channel *amqp.Channel, queue string) amqp.Delivery {
	message, ok, err := channel.Get(queue, false)
	check(err)
	same(ok, true)
	return message
}

func numbers(from, to int) (numbers []string) {
	for n := from; n < to; n++ {
		numbers = append(numbers, strconv.Itoa(n))
	}
	return numbers
}

func hello(b *bench) {
	channel := b.channel()
	queue := b.queue(channel, nil)
	headers := amqp.Table{"answer": int32(42), "nested": amqp.Table{"yes": true}}
	publish(channel, "", queue, amqp.Publishing{
		ContentType: "text/plain", Headers: headers, Body: []byte("Hello, world!"),
	})
	message := take(channel, queue, 1)[0]
	same(string(message.Body), "Hello, world!")
	same(message.ContentType, "text/plain")
	same(message.Headers, headers)
	same([]any{message.Exchange, message.RoutingKey, message.Redelivered}, []any{"", queue, false})
}

// With one message at a time each, the slow worker keeps its first and the quick one does all others.
func workQueue(b *bench) {
	channel, slow, quick := b.channel(), b.channel(), b.channel()
	queue := b.queue(channel, nil)
	send(channel, queue, numbers(0, 10)...)

	check(slow.Qos(1, 0, false))
	slowWork := consume(slow, queue, false)
	first := next(slowWork)
	check(quick.Qos(1, 0, false))
	quickWork := consume(quick, queue, false)
	for n := 1; n < 10; n++ {
		message := next(quickWork)
		same(string(message.Body), strconv.Itoa(n))
		check(message.Ack(false))
	}
	check(first.Ack(false))
	check(slow.Close())
	for message := range slowWork {
		fail("the slow worker got %s as well", message.Body)
	}
	same(string(first.Body), "0")
	same(rest(channel, queue), nil)
}

func priorities(b *bench) {
	channel := b.channel()
	queue := b.queue(channel, amqp.Table{"x-max-priority": 10})
	type prioritized struct {
		priority uint8
		body     string
	}
	var sent, got []prioritized
	for n, body := range numbers(0, 110) {
		priority := uint8(n * 7 % 11)
		publish(channel, "", queue, amqp.Publishing{Priority: priority, Body: []byte(body)})
		sent = append(sent, prioritized{priority, body})
	}
	for _, message := range take(channel, queue, 110) {
		got = append(got, prioritized{message.Priority, string(message.Body)})
	}
	slices.SortStableFunc(sent, func(a, b prioritized) int { return int(b.priority) - int(a.priority) })
	same(got, sent)
}

func pubsub(b *bench) {
	channel := b.channel()
	fanout := b.exchange(channel, "fanout")
	var queues []string
	for range 3 {
		queue := must(channel.QueueDeclare("", false, false, true, false, nil))
		check(channel.QueueBind(queue.Name, "", fanout, false, nil))
		queues = append(queues, queue.Name)
	}
	for _, body := range []string{"first", "second"} {
		publish(channel, fanout, "ignored", amqp.Publishing{Body: []byte(body)})
	}
	for _, queue := range queues {
		same(bodies(take(channel, queue, 2)), []string{"first", "second"})
		same(rest(channel, queue), nil)
	}
}

// routed is what arrives in one queue per list of binding keys, when a message is published to each routing key.
func routed(b *bench, kind string, bindings [][]string, keys []string) (arrived [][]string) {
	channel := b.channel()
	exchange := b.exchange(channel, kind)
	for _, bindingKeys := range bindings {
		queue := b.queue(channel, nil)
		for _, key := range bindingKeys {
			check(channel.QueueBind(queue, key, exchange, false, nil))
		}
	}
	for _, key := range keys {
		publish(channel, exchange, key, amqp.Publishing{Body: []byte(key)})
	}
	for _, queue := range b.queues {
		arrived = append(arrived, rest(channel, queue))
	}
	return arrived
}

func routing(b *bench) {
	got := routed(b, "direct", [][]string{{"error"}, {"info", "error"}}, []string{"info", "error", "debug", "error"})
	same(got, [][]string{{"error", "error"}, {"info", "error", "error"}})
}

func topics(b *bench) {
	keys := []string{
		"quick.orange.rabbit", "lazy.orange.elephant", "quick.brown.fox", "lazy", "lazy.a.b.rabbit", "orange",
	}
	got := routed(b, "topic", [][]string{{"*.orange.*"}, {"*.*.rabbit", "lazy.#"}}, keys)
	same(got, [][]string{keys[:2], {keys[0], keys[1], keys[3], keys[4]}})
}

func headers(b *bench) {
	channel := b.channel()
	exchange := b.exchange(channel, "headers")
	messages := []amqp.Table{
		{"format": "pdf", "type": "report"}, {"format": "pdf"}, {"format": "zip", "type": "log"},
		{"type": "report", "pages": int32(3)},
	}
	expected := map[string][]amqp.Table{"all": messages[:1], "any": {messages[0], messages[1], messages[3]}}
	queues := map[string]string{}
	for match := range expected {
		queues[match] = b.queue(channel, nil)
		wanted := amqp.Table{"x-match": match, "format": "pdf", "type": "report"}
		check(channel.QueueBind(queues[match], "", exchange, false, wanted))
	}
	for _, headers := range messages {
		publish(channel, exchange, "", amqp.Publishing{Headers: headers})
	}
	for match, queue := range queues {
		var got []amqp.Table
		for _, message := range take(channel, queue, len(expected[match])) {
			got = append(got, message.Headers)
		}
		same(got, expected[match])
		same(rest(channel, queue), nil)
	}
}

func rpc(b *bench) {
	server, client := b.channel(), b.channel()
	requests := b.queue(server, nil)
	calls := consume(server, requests, true)
	serverError := make(chan error, 1)
	go func() {
		for call := range calls {
			n, err := strconv.Atoi(string(call.Body))
			answer := amqp.Publishing{CorrelationId: call.CorrelationId, Body: []byte(strconv.Itoa(n * n))}
			if err = errors.Join(err, server.Publish("", call.ReplyTo, false, false, answer)); err != nil {
				serverError <- err
				return
			}
		}
	}()

	replyTo := must(client.QueueDeclare("", false, false, true, false, nil)).Name
	replies := consume(client, replyTo, true)
	expected, answers := map[string]string{}, map[string]string{}
	for n := range 10 {
		call := amqp.Publishing{ReplyTo: replyTo, CorrelationId: fmt.Sprint("call-", n), Body: []byte(strconv.Itoa(n))}
		publish(client, "", requests, call)
		expected[call.CorrelationId] = strconv.Itoa(n * n)
	}
	for range 10 {
		select {
		case reply := <-replies:
			answers[reply.CorrelationId] = string(reply.Body)
		case err := <-serverError:
			check(err)
		}
	}
	same(answers, expected)
}

func confirms(b *bench) {
	channel := b.channel()
	queue := b.queue(channel, nil)
	check(channel.Confirm(false))
	confirmations := channel.NotifyPublish(make(chan amqp.Confirmation, 300))
	all := numbers(0, 100)
	publishConfirmed := func(body string) *amqp.DeferredConfirmation {
		return must(channel.PublishWithDeferredConfirm("", queue, false, false, amqp.Publishing{Body: []byte(body)}))
	}

	for _, body := range all[:20] { // one by one
		same(publishConfirmed(body).Wait(), true)
	}
	send(channel, queue, all...) // as they come
	for tag := range uint64(120) {
		same(<-confirmations, amqp.Confirmation{DeliveryTag: tag + 1, Ack: true})
	}
	for batch := range slices.Chunk(all, 20) { // batch by batch
		var open []*amqp.DeferredConfirmation
		for _, body := range batch {
			open = append(open, publishConfirmed(body))
		}
		for _, confirmation := range open {
			same(confirmation.Wait(), true)
		}
	}
	same(rest(channel, queue), slices.Concat(all[:20], all, all))
}

func returns(b *bench) {
	channel := b.channel()
	queue, nowhere := b.queue(channel, nil), unique("nowhere")
	check(channel.Confirm(false))
	returned := channel.NotifyReturn(make(chan amqp.Return, 2))
	for _, message := range [][]string{{nowhere, "lost"}, {queue, "found"}} {
		published := amqp.Publishing{Body: []byte(message[1])}
		same(must(channel.PublishWithDeferredConfirm("", message[0], true, false, published)).Wait(), true)
	}
	lost := <-returned
	same([]any{lost.ReplyCode, lost.ReplyText}, []any{uint16(amqp.NoRoute), "NO_ROUTE"})
	same([]string{lost.Exchange, lost.RoutingKey, string(lost.Body)}, []string{"", nowhere, "lost"})
	same(rest(channel, queue), []string{"found"})
	same(len(returned), 0)
}

func get(b *bench) {
	channel := b.channel()
	queue := b.queue(channel, nil)
	same(rest(channel, queue), nil)
	send(channel, queue, "a", "b", "c")
	for n, body := range []string{"a", "b", "c"} {
		message := pull(channel, queue)
		same([]any{string(message.Body), message.MessageCount, message.Redelivered}, []any{body, uint32(2 - n), false})
		check(message.Ack(false))
	}
	same(rest(channel, queue), nil)
}

func nackRequeue(b *bench) {
	channel := b.channel()
	queue := b.queue(channel, nil)
	send(channel, queue, "a", "b", "c")
	for _, redelivered := range []bool{false, true} {
		var last amqp.Delivery
		for _, body := range []string{"a", "b", "c"} {
			last = pull(channel, queue)
			same([]any{string(last.Body), last.Redelivered}, []any{body, redelivered})
		}
		check(last.Nack(true, true))
	}
	same(rest(channel, queue), []string{"a", "b", "c"})
}

func reject(b *bench) {
	channel := b.channel()
	deadLetters, graveyard := b.exchange(channel, "fanout"), b.queue(channel, nil)
	check(channel.QueueBind(graveyard, "", deadLetters, false, nil))
	var queue string
	for _, arguments := range []amqp.Table{nil, {"x-dead-letter-exchange": deadLetters}} {
		queue = b.queue(channel, arguments)
		send(channel, queue, "unwanted")
		check(pull(channel, queue).Reject(false))
		same(rest(channel, queue), nil)
	}
	message := take(channel, graveyard, 1)[0]
	same([]string{message.Exchange, message.RoutingKey, string(message.Body)}, []string{deadLetters, queue, "unwanted"})
	deaths := message.Headers["x-death"].([]any)
	same(len(deaths), 1)
	death := deaths[0].(amqp.Table)
	same([]any{death["reason"], death["queue"], death["count"]}, []any{"rejected", queue, int64(1)})
	same([]any{death["exchange"], death["routing-keys"]}, []any{"", []any{queue}})
	same(rest(channel, graveyard), nil)
}

func recoverUnacked(b *bench) {
	channel := b.channel()
	queue := b.queue(channel, nil)
	send(channel, queue, "a", "b", "c")
	deliveries := consume(channel, queue, false)
	check(next(deliveries).Ack(false))
	next(deliveries)
	next(deliveries)
	check(channel.Recover(true))
	for _, body := range []string{"b", "c"} {
		message := next(deliveries)
		same([]any{string(message.Body), message.Redelivered}, []any{body, true})
	}
}

func tx(b *bench) {
	channel := b.channel()
	queue := b.queue(channel, nil)
	check(channel.Tx())
	send(channel, queue, "undone")
	check(channel.TxRollback())
	send(channel, queue, "done")
	same(rest(channel, queue), nil)
	check(channel.TxCommit())
	for _, commit := range []bool{false, true} {
		worker := b.channel()
		check(worker.Tx())
		message := pull(worker, queue)
		same([]any{string(message.Body), message.Redelivered}, []any{"done", commit})
		check(message.Ack(false))
		if commit {
			check(worker.TxCommit())
		} else {
			check(worker.TxRollback())
		}
		check(worker.Close())
	}
	same(rest(channel, queue), nil)
}

func exclusiveAutodelete(b *bench) {
	owner := must(amqp.Dial(b.url))
	owned := must(must(owner.Channel()).QueueDeclare("", false, false, true, false, nil)).Name
	_, err := b.channel().QueueDeclarePassive(owned, false, false, false, false, nil)
	same(code(err), amqp.ResourceLocked)
	check(owner.Close())
	b.waitUntilGone(owned)

	channel, name := b.channel(), unique("queue")
	must(channel.QueueDeclare(name, false, true, false, false, nil))
	b.queues = append(b.queues, name)
	for _, consumer := range []string{"first", "second"} {
		must(channel.Consume(name, consumer, false, false, false, false, nil))
	}
	check(channel.Cancel("first", false))
	must(channel.QueueDeclarePassive(name, false, true, false, false, nil))
	check(channel.Cancel("second", false))
	b.waitUntilGone(name)
}

func bigMessage(b *bench) {
	channel := b.channel()
	queue := b.queue(channel, nil)
	body := make([]byte, 10*1024*1024)
	must(rand.Read(body))
	publish(channel, "", queue, amqp.Publishing{Body: body})
	got := take(channel, queue, 1)[0].Body
	same(len(got), len(body))
	same(sha256.Sum256(got), sha256.Sum256(body))
}

func consumerCancel(b *bench) {
	channel, other := b.channel(), b.channel()
	queue := b.queue(channel, nil)
	cancelled := channel.NotifyCancel(make(chan string, 1))
	start := func(tag string) <-chan amqp.Delivery {
		return must(channel.Consume(queue, tag, true, false, false, false, nil))
	}

	deliveries := start("one")
	send(channel, queue, "before")
	same(string(next(deliveries).Body), "before")
	check(channel.Cancel("one", false))
	send(channel, queue, "after")
	same(rest(channel, queue), []string{"after"})
	for message := range deliveries {
		fail("%s arrived after cancel", message.Body)
	}

	deliveries = start("two")
	send(channel, queue, "again")
	same(string(next(deliveries).Body), "again")
	must(other.QueueDelete(queue, false, false, false))
	same(<-cancelled, "two")
	_, open := <-deliveries
	same(open, false)
}

func badCredentials(b *bench) {
	wrong := must(neturl.Parse(b.url))
	wrong.User = neturl.UserPassword(wrong.User.Username(), "wrong")
	_, err := amqp.Dial(wrong.String())
	same(code(err), amqp.AccessRefused)
	check(must(amqp.Dial(b.url)).Close())
}

func workerKilled(b *bench) {
	channel := b.channel()
	queue := b.queue(channel, nil)
	send(channel, queue, numbers(0, 12)...)
	victim := startVictim(b.url, queue)
	defer victim.kill()
	same(victim.take(8), numbers(0, 8))

	deliveries := consume(channel, queue, false)
	expect := func(bodies []string, redelivered bool) {
		for _, body := range bodies {
			message := next(deliveries)
			same([]any{string(message.Body), message.Redelivered}, []any{body, redelivered})
			check(message.Ack(false))
		}
	}
	expect(numbers(8, 12), false)
	victim.kill()
	expect(numbers(2, 8), true)
	check(channel.Close())
	for message := range deliveries {
		fail("%s arrived twice", message.Body)
	}
	same(rest(b.channel(), queue), nil)
}

// worker is the victim of worker_killed: holds up to six messages, acknowledges only the first two, says what it has.
func worker(url, queue string) {
	channel := must(must(amqp.Dial(url)).Channel())
	check(channel.Qos(6, 0, false))
	for message := range consume(channel, queue, false) {
		if message.DeliveryTag <= 2 {
			check(message.Ack(false))
		}
		fmt.Println(string(message.Body))
	}
}
