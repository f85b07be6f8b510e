package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ticketgate/store/node"
	"ticketgate/store/node/lives"
	"ticketgate/ticket"
)

// identify takes the node's lock file, if there is a place for it, and tells the node which lives of it are over.
func (g *gateway) identify(o *node.Options) error {
	dir, name := g.c.Node.StateDir, g.c.Node.Name
	if dir == "" {
		return nil
	}
	f, err := lives.Open(dir, name)
	switch {
	case errors.Is(err, lives.ErrTaken):
		return fmt.Errorf("node.state_dir: a gateway of the name %q runs on this host already: %w; stop it, or give this one another node.name", name, err)
	case err != nil:
		return fmt.Errorf("node.state_dir: %w; it must be a folder that this process may write to", err)
	}
	g.lives = f
	o.Former, o.OnLife = f.Former(), f.Add
	return nil
}

// lookForNamesake is how often the list of nodes is looked at for another node of the name.
const lookForNamesake = 250 * time.Millisecond

// onlyOne waits while the store has another living node of this one's name: a former process of which nothing is proven, or one on
// another host. It is an error if that one renews its lease, because then it lives. Who the store does not know yet is waited for no
// longer than the store is away.
func (g *gateway) onlyOne(ctx context.Context) error {
	w := namesake{name: g.c.Node.Name}
	t := time.NewTicker(lookForNamesake)
	defer t.Stop()
	for {
		s := g.node.Status()
		wait, err := w.look(time.Now(), s.Incarnation, s.Nodes)
		switch {
		case err != nil || wait == 0:
			return err
		case !w.told:
			w.told = true
			g.log.Warn("waiting for the end of another gateway of this name, or for a sign of life of it", "node", w.name, "at_most", wait.Round(time.Second).String())
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// A namesake is who else has the node's name and has not ended.
type namesake struct {
	name string
	told bool
	seen map[ticket.Incarnation]sighting
}

// A sighting is an incarnation as a view had it.
type sighting struct {
	left  time.Duration // in the last view
	first time.Time     // when its lease ends, as of the first
}

// drift is by how much later a lease may seem to end without having been renewed: views come with a round trip of their own, and
// are looked at a little later.
const drift = time.Second

// look returns how long to wait before there is certainly no other, 0 if there is none now. own is this node's incarnation, nodes
// the last view. Two views that are the same to the nanosecond are one.
func (w *namesake) look(now time.Time, own ticket.Incarnation, nodes []ticket.NodeView) (wait time.Duration, err error) {
	if w.seen == nil {
		w.seen = map[ticket.Incarnation]sighting{}
	}
	for _, n := range nodes {
		if n.Dead || n.Incarnation == own || n.Name != w.name {
			continue
		}
		s, known := w.seen[n.Incarnation]
		ends := now.Add(n.Left)
		switch {
		case !known:
			s.first = ends
		case s.left != n.Left && ends.After(s.first.Add(drift)):
			return 0, fmt.Errorf("node.name: another gateway of the name %q renews its lease in the store; give this one another name, or stop that one", w.name)
		}
		s.left = n.Left
		w.seen[n.Incarnation] = s
		wait = max(wait, s.first.Sub(now), lookForNamesake)
	}
	return wait, nil
}
