package redis

import (
	"context"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// several asks several servers the same at once, each on a link that stays. Used by one goroutine.
type several struct {
	dialler *dialler
	links   map[string]*link
}

// An answer is what one of several said.
type answer struct {
	addr string
	msg  rueidis.RedisMessage
	err  error
}

// ask returns what each of addrs says to words, in the order of addrs. Links of others are closed.
func (s *several) ask(ctx context.Context, addrs []string, words ...string) []answer {
	answers := make([]answer, len(addrs))
	links := make([]*link, len(addrs))
	var wait sync.WaitGroup
	for i, addr := range addrs {
		l := s.links[addr]
		delete(s.links, addr)
		wait.Go(func() {
			answers[i].addr = addr
			links[i], answers[i].msg, answers[i].err = s.askOne(ctx, l, addr, words)
		})
	}
	wait.Wait()
	s.close()
	s.links = make(map[string]*link, len(addrs))
	for i, l := range links {
		if l == nil {
			continue
		}
		if s.links[addrs[i]] != nil { // the same address twice
			l.close()
			continue
		}
		s.links[addrs[i]] = l
	}
	return answers
}

// askOne asks at l, or at a new link. It returns the link if it is still good.
func (s *several) askOne(ctx context.Context, l *link, addr string, words []string) (*link, rueidis.RedisMessage, error) {
	if l != nil && l.broken() {
		l.close()
		l = nil
	}
	if l == nil {
		var err error
		if l, err = s.dialler.dial(ctx, addr); err != nil {
			return nil, rueidis.RedisMessage{}, err
		}
	}
	stop := context.AfterFunc(ctx, l.cut)
	defer stop()
	m, err := l.ask(s.dialler.timeout, words...)
	if l.broken() {
		l.close()
		l = nil
	}
	return l, m, err
}

func (s *several) close() {
	for _, l := range s.links {
		l.close()
	}
	s.links = nil
}

// listenEvery is how often a connection that only listens is asked whether it is still there. It is cut if no answer comes in
// the same time.
const listenEvery = time.Second

// listen subscribes to channel at l and calls state once that is so, and payload for each message; neither while the other
// runs. It returns when l breaks or ctx ends; l is cut then.
func listen(ctx context.Context, l *link, channel string, payload func(string), subscribed func()) {
	done := make(chan struct{})
	var pinger sync.WaitGroup
	pinger.Go(func() {
		tick := time.NewTicker(listenEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if l.run(listenEvery, l.client.B().Ping().Build())[0].Error() != nil {
					l.cut()
				}
			}
		}
	})
	stop := context.AfterFunc(ctx, l.cut)
	hooked := rueidis.WithOnSubscriptionHook(context.Background(), func(s rueidis.PubSubSubscription) {
		if s.Kind == "subscribe" {
			subscribed()
		}
	})
	_ = l.client.Receive(hooked, l.client.B().Subscribe().Channel(channel).Build(), func(m rueidis.PubSubMessage) { payload(m.Message) })
	stop()
	l.cut()
	close(done)
	pinger.Wait()
}
