// Package follow keeps a node's revoke.Set as the store's log has it.
//
//	watcher    1 goroutine    a connection of the log's own that says when something may have been added
//	reader     1 goroutine    reads what is new: when told so, each second all the same, ten times as often while nobody watches
//
// A revocation counts here before the log has it: whoever revokes is not made to wait for a store that is away. What the log does not
// have, because the store was away or has lost its data, is published again until it does; each node does that with all it knows, and
// a log takes each only once.
package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/revoke"
	"ticketgate/ticket"
)

// Options configure a Follower. All but Logger are required.
type Options struct {
	Log     revoke.Log
	Set     *revoke.Set
	Changed func()           // Set knows more than before. Called on several goroutines; does not wait
	Now     func() time.Time // the store's clock
	Clock   mono.Clock       // measures; the waiting itself is real time
	Logger  *slog.Logger     // nil for none
}

// How often the log is read.
const (
	watchedEvery   = time.Second // nothing should be new then: what was added has been told
	unwatchedEvery = 100 * time.Millisecond
	failedEvery    = 250 * time.Millisecond
	expireEvery    = time.Minute

	// After so long without reading the log a node knows too little to let anybody in.
	staleMax = 10 * time.Second

	readTimeout = 2 * time.Second
	pageSize    = 500
	tellSize    = 100 // revocations published at once
)

// Why a node is not ready. Both are ticket.ErrUnavailable.
var (
	ErrUnread = fmt.Errorf("%w: what is revoked is not known yet", ticket.ErrUnavailable)
	ErrStale  = fmt.Errorf("%w: what is revoked cannot be read", ticket.ErrUnavailable)
)

// A Follower follows one log. Any goroutine may use it.
type Follower struct {
	o       Options
	readAt  atomic.Int64 // by Clock, when the log was read to its end; 0: never
	watched atomic.Bool
	kicked  chan struct{}
	quit    context.CancelFunc
	ctx     context.Context
	work    sync.WaitGroup

	place   revoke.Place // the reader's
	failing bool
}

// New returns a Follower that does nothing before Start.
func New(o Options) *Follower {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Follower{o: o, kicked: make(chan struct{}, 1)}
	f.ctx, f.quit = context.WithCancel(context.Background())
	return f
}

// Start tries once to read the log, at most until ctx ends, and starts the goroutines, which go on. It is called once.
func (f *Follower) Start(ctx context.Context) {
	f.turn(ctx)
	f.work.Go(f.reading)
	f.work.Go(f.watching)
}

// Close ends the goroutines. It may be called without Start.
func (f *Follower) Close() {
	f.quit()
	f.work.Wait()
}

// Ready is nil while the node knows what is revoked.
func (f *Follower) Ready() error {
	switch at := f.readAt.Load(); {
	case at == 0:
		return ErrUnread
	case f.o.Clock.Now().Sub(mono.Time(at)) > staleMax:
		return ErrStale
	}
	return nil
}

// Stats are a Follower's figures.
type Stats struct {
	Known   int           // revocations in force
	Waiting int           // those of them that the log does not have
	Lag     time.Duration // since the log was read to its end; below 0: never
	Watched bool          // news come by themselves
}

// Stats fills s.
func (f *Follower) Stats(s *Stats) {
	*s = Stats{Known: f.o.Set.Len(), Waiting: f.o.Set.Waiting(), Lag: -1, Watched: f.watched.Load()}
	if at := f.readAt.Load(); at != 0 {
		s.Lag = max(0, f.o.Clock.Now().Sub(mono.Time(at)))
	}
}

// ErrFull is a Set that takes no more.
var ErrFull = revoke.ErrFull

// Publish makes r count here and tells the other nodes. told false: they are told as soon as the store lets us, and until then only this
// node knows; should it end before that, they never do. The error says that r counts nowhere.
func (f *Follower) Publish(ctx context.Context, r *revoke.Revocation) (told bool, err error) {
	if err := r.Check(); err != nil {
		return false, err
	}
	if f.o.Set.Add(r, true, f.o.Now()) == revoke.NoRoom { // told: about to be, so that the reader does not tell it as well
		return false, ErrFull
	}
	f.o.Changed()
	list := []revoke.Revocation{*r}
	if err := f.o.Log.Publish(ctx, list); err != nil {
		f.o.Set.Told(list, false)
		f.o.Logger.Warn("a revocation is known to this node only, until the store takes it", "id", r.ID, "reason", err)
		f.kick()
		return false, nil
	}
	return true, nil
}

// kick has the log read soon.
func (f *Follower) kick() {
	select {
	case f.kicked <- struct{}{}:
	default:
	}
}

func (f *Follower) watching() {
	for f.ctx.Err() == nil {
		err := f.o.Log.Watch(f.ctx, func() {
			f.watched.Store(true)
			f.kick()
		})
		if f.watched.Swap(false) && f.ctx.Err() == nil {
			f.o.Logger.Warn("revocations are not told by themselves any more: the log is read each 100 ms", "reason", err)
		}
		f.kick() // something may have been missed
		pause(f.ctx, failedEvery)
	}
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (f *Follower) reading() {
	expire := time.NewTicker(expireEvery)
	defer expire.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-expire.C:
			f.o.Set.Expire(f.o.Now())
			continue
		case <-f.kicked:
		case <-next.C:
		}
		next.Reset(f.wait(f.turn(f.ctx)))
	}
}

// wait is how long the next turn may be put off.
func (f *Follower) wait(ok bool) time.Duration {
	switch {
	case !ok:
		return failedEvery
	case f.watched.Load():
		return watchedEvery
	}
	return unwatchedEvery
}

// turn reads what is new, and tells what the log does not have.
func (f *Follower) turn(ctx context.Context) bool {
	err := f.read(ctx)
	if err == nil {
		err = f.tell(ctx)
	}
	if err != nil && !f.failing && ctx.Err() == nil {
		f.o.Logger.Warn("the log of revocations does not answer", "reason", err)
	}
	if err == nil && f.failing {
		f.o.Logger.Info("the log of revocations answers", "known", f.o.Set.Len())
	}
	f.failing = err != nil
	return err == nil
}

// read reads the log to its end.
func (f *Follower) read(ctx context.Context) error {
	for {
		began := f.o.Clock.Now()
		page, err := f.page(ctx)
		if err != nil {
			return err
		}
		if page.Reset {
			if f.place.History != "" {
				f.o.Logger.Info("the log of revocations has begun anew: what this node knows is told again", "known", f.o.Set.Len())
			}
			f.o.Set.Untell() // what of it stands there, the pages say
		}
		f.take(page.Texts)
		f.place = page.Next
		if !page.More {
			f.readAt.Store(int64(max(began, 1)))
			return nil
		}
	}
}

func (f *Follower) page(ctx context.Context) (revoke.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return f.o.Log.Read(ctx, f.place, pageSize)
}

// take adds a page's revocations to the Set.
func (f *Follower) take(texts [][]byte) {
	now, changed := f.o.Now(), false
	for _, text := range texts {
		r, err := revoke.Parse(text)
		if err != nil { // written by a later version, or by hand
			f.o.Logger.Error("a revocation in the log is not understood, and not kept to", "error", err)
			continue
		}
		switch f.o.Set.Add(&r, true, now) {
		case revoke.New:
			changed = true
		case revoke.NoRoom:
			f.o.Logger.Error("no room for a revocation of the log", "id", r.ID)
		}
	}
	if changed {
		f.o.Changed()
	}
}

// tell publishes what the log does not have.
func (f *Follower) tell(ctx context.Context) error {
	for {
		list := f.o.Set.Untold(tellSize)
		if len(list) == 0 {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		err := f.o.Log.Publish(ctx, list)
		cancel()
		if errors.Is(err, revoke.ErrFull) {
			f.o.Logger.Error("revocations cannot be told to the other nodes", "error", err)
		}
		if err != nil {
			return err
		}
		f.o.Set.Told(list, true)
	}
}
