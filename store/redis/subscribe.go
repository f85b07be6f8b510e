package redis

import (
	"context"
)

// Subscribe listens to a channel, whose name gets the store's prefix, until ctx or the store ends, and returns then. It follows
// failovers. state is told when it listens from now on, and when it does not any more: what is published meanwhile is lost, and
// so may be what came shortly before. payload gets each message, which belongs to it. Neither is called while the other runs,
// and neither may wait longer than some milliseconds.
func (s *Store) Subscribe(ctx context.Context, channel string, payload func([]byte), state func(up bool)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(s.life, cancel)
	defer stop()
	for ctx.Err() == nil {
		if p := s.nodesPrimary(); p != nil {
			s.subscribeAt(ctx, p, channel, payload, state)
		}
		pause(ctx, probeEvery)
	}
}

// subscribeAt is Subscribe at one primary, until it is none any more. A cluster tells all its nodes what is published at one.
func (s *Store) subscribeAt(ctx context.Context, p *primary, channel string, payload func([]byte), state func(up bool)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(p.life, cancel)
	defer stop()
	l, err := s.connect(ctx, p.addr)
	if err != nil {
		return
	}
	defer l.close()
	up := false
	listen(ctx, l, s.prefix+channel, func(m string) { payload([]byte(m)) }, func() {
		up = true
		state(true)
	})
	if up {
		state(false)
	}
}
