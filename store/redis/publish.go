package redis

import (
	"context"

	"ticketgate/ticket"
)

// Publish sends messages to whoever listens to their channels (Subscribe), in order, in one step. nil: the server has them, which
// says nothing of who listens. They are copied. It waits for the store's timeout at most.
func (s *Store) Publish(ctx context.Context, ms []ticket.Message) error {
	start := s.clock.Now()
	c := newCommands(s.prefix, 1)
	c.begin(scriptPublish)
	c.nodesKey("state")
	c.endKeys()
	for _, m := range ms {
		c.text(s.prefix + m.Channel)
		c.bytes(m.Payload)
	}
	c.end()
	_, err := s.oneInt(ctx, c)
	s.stats.observe(opPublish, labelOK, err, s.clock.Now().Sub(start))
	return err
}
