package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ticketgate/store/redistest"
	"ticketgate/tools/rig"
)

// Test 18 where the store fails over: clients go on using tickets, each many times at once, while primaries are killed or step down.

const (
	failoverClients  = 12
	failoverLimit    = 3
	failoverFaults   = 24
	failoverSpent    = 8                      // tickets that are used once just before a primary goes
	failoverLease    = 6 * time.Second        // where the nodes' own list is concerned issue is closed for so long and 5 s more
	failoverLife     = 30 * time.Second       // of a ticket: longer than a failover
	failoverShort    = 15 * time.Second       // in the short form, which has to wait for the slots of tickets that had no clear answer
	failoverStore    = 500 * time.Millisecond // store.timeout
	failoverCalm     = 3 * time.Second        // between one failover and the next
	failoverPatience = 90 * time.Second       // for all clients to come in again, on a busy machine
	failoverReplays  = 50                     // opened tickets that are used again behind a failover
	failoverPoll     = 20 * time.Millisecond
)

// backend is a Redis that is more than one server.
type backend struct {
	yaml     string // of store
	servers  []*redistest.Server
	primary  func(slot int) *redistest.Server
	failover func(slot int) *redistest.Server
	follows  func(slot int, old *redistest.Server) *redistest.Server
}

func startBackend(site *rig.Site, kind string) *backend {
	yaml := func(addresses []string, more string) string {
		return fmt.Sprintf("{ kind: redis, addresses: [%s], timeout: %v%s }", `"`+strings.Join(addresses, `", "`)+`"`, failoverStore, more)
	}
	if kind == "cluster" {
		c := redistest.StartCluster(site)
		return &backend{yaml(c.Addrs()[:3], ""), c.Servers, c.Primary, c.Failover, c.Follows}
	}
	r := redistest.StartSentinel(site)
	return &backend{
		yaml(r.Addrs(), fmt.Sprintf(", sentinel: { master: %s }", redistest.Master)), r.Servers,
		func(int) *redistest.Server { return r.Primary() },
		func(int) *redistest.Server { return r.Failover() },
		func(_ int, old *redistest.Server) *redistest.Server { return r.Follows(old) },
	}
}

// fault is one way in which a primary goes.
type fault struct {
	how   string // commanded: a replica takes over by order; killed; lagging: killed, and its replicas have missed the last that it did
	where string // whose primary: nodes: of the nodes' own list; tickets: of some clients' tickets. Under Sentinel there is one
}

// faultsOf are those of a run.
func faultsOf(x *exam, kind string) []fault {
	all := []fault{
		{"commanded", "nodes"}, {"lagging", "tickets"}, {"killed", "nodes"},
		{"commanded", "tickets"}, {"lagging", "nodes"}, {"killed", "tickets"},
	}
	if kind == "sentinel" {
		for i := range all {
			all[i].where = "all"
		}
	}
	out := make([]fault, x.n(failoverFaults, 2))
	for i := range out {
		out[i] = all[i%len(all)]
	}
	return out
}

// failoverRun is a run of them.
type failoverRun struct {
	*cluster
	*backend
	x       *exam
	site    *rig.Site
	h       *history
	clients []string
	list    int      // the slot of the nodes' list
	tries   int      // names of clients who spend
	victims []string // clients whose tickets are at another primary than the nodes' list, where there is more than one

	tickets sync.Map // all, by their paths

	mu     sync.Mutex
	wrong  map[string]int // answers that break a promise
	closed map[string]int // sockets that gateways closed, by code
}

// failovers plays test 18 on Redis under Sentinel, or on a Redis Cluster.
func failovers(ctx context.Context, x *exam, kind string) (err error) {
	begun := time.Now()
	life := failoverLife
	if x.size < 0.1 {
		life = failoverShort
	}
	f := &failoverRun{x: x, site: rig.NewSite(filepath.Join(x.dir, kind)), h: newHistory(failoverLimit, life),
		wrong: map[string]int{}, closed: map[string]int{}}
	defer f.site.Close()
	if err := makeDir(x.dir, kind); err != nil {
		return err
	}
	if err := f.site.Try(func() { f.backend = startBackend(f.site, kind) }); err != nil {
		return err
	}
	f.cluster, err = start(ctx, x, clusterOptions{nodes: replayNodes, count: failoverLimit, dir: kind + "-nodes", limit: 8192, stored: f.yaml, yaml: fmt.Sprintf(
		"cluster: { heartbeat: 1s, lease: %v }\ntickets: { ttl: %v }\n", failoverLease, life)})
	if err != nil {
		return err
	}
	defer func() { x.want(f.close() == nil, "a node did not stop") }()
	if err := f.name(ctx, kind); err != nil {
		return err
	}
	f.x.figure("%s: up after %.1f s", kind, time.Since(begun).Seconds())
	load := f.load(ctx)
	defer load.end()
	for _, ft := range faultsOf(x, kind) {
		if err := rest(ctx, max(x.pace(failoverCalm), time.Second)); err != nil {
			return err
		}
		if err := f.play(ctx, kind, ft); err != nil {
			return fmt.Errorf("%s at %s: %w", ft.how, ft.where, err)
		}
	}
	if err := rest(ctx, max(x.pace(failoverCalm), time.Second)); err != nil {
		return err
	}
	load.end()
	f.judge(kind)
	return f.free(ctx, kind)
}

// name chooses the clients, and learns whose tickets are where.
func (f *failoverRun) name(ctx context.Context, kind string) error {
	for n := range f.x.n(failoverClients, 6) {
		f.clients = append(f.clients, countName(n))
	}
	if kind != "cluster" {
		f.victims = f.clients
		return nil
	}
	var nodes *redistest.Server
	err := f.site.Try(func() {
		slot, err := f.servers[0].Do("CLUSTER", "KEYSLOT", "tg:{nodes}:state")
		if err != nil {
			f.site.Fatal(err)
		}
		n, _ := slot.(int64)
		f.list = int(n)
		nodes = f.primary(f.list)
	})
	if err != nil {
		return err
	}
	for _, client := range f.clients {
		t, err := f.ask(ctx, client, 0)
		if err != nil || t == nil {
			return errors.Join(errors.New("no ticket before anything has happened"), err)
		}
		at, err := f.at(t)
		if err != nil {
			return err
		}
		if at != nodes {
			f.victims = append(f.victims, client)
		}
	}
	if len(f.victims) == 0 {
		return errors.New("all clients' tickets are at the primary of the nodes' list: try another seed of keys")
	}
	return nil
}

// at is the primary of a ticket.
func (f *failoverRun) at(t *rig.Ticket) (at *redistest.Server, err error) {
	slot, err := f.slot(t)
	if err != nil {
		return nil, err
	}
	err = f.site.Try(func() { at = f.primary(slot) })
	return at, err
}

// play lets a primary go and waits until all clients have come in again.
func (f *failoverRun) play(ctx context.Context, kind string, ft fault) error {
	slot := f.list
	if ft.where == "tickets" {
		t, err := f.askOn(ctx, f.victims[0])
		if err != nil {
			return err
		}
		if slot, err = f.slot(t); err != nil {
			return err
		}
	}
	var old *redistest.Server
	if err := f.site.Try(func() { old = f.primary(slot) }); err != nil {
		return err
	}
	spent, err := f.prepare(ctx, kind, old)
	if err != nil {
		return err
	}
	before := time.Now()
	recent := before.Add(-f.h.life / 2)
	opened := 0
	switch ft.how {
	case "commanded":
		if opened, err = f.spendAll(ctx, spent); err == nil {
			err = f.site.Try(func() { f.failover(slot) })
		}
	case "killed":
		if opened, err = f.spendAll(ctx, spent); err == nil {
			err = f.site.Try(func() {
				old.Kill()
				f.follows(slot, old)
			})
		}
	case "lagging":
		opened, err = f.lag(ctx, slot, old, spent)
	}
	if err != nil {
		return err
	}
	promoted := time.Now()
	first, late, err := f.replay(ctx, spent) // some nodes do not know yet who the primary is
	if err != nil {
		return err
	}
	if ft.how != "commanded" {
		if err := f.site.Try(old.Restart); err != nil { // it becomes a replica
			return err
		}
	}
	issued, used, all, err := f.resumed(ctx, promoted, f.concerned(ft.where))
	if err != nil {
		return err
	}
	after := time.Now()
	again, lateAgain, err := f.replay(ctx, f.some(recent, before))
	if err != nil {
		return err
	}
	f.h.disturbed(before, after)
	since := func(t time.Time) float64 { return t.Sub(before).Seconds() }
	f.x.figure("%s: primary of %s %s: another after %.1f s, first ticket after %.1f s, first socket %.1f s, all clients %.1f s; of %d tickets spent before and used again at each node %d opened (%d of these uses were refused with 503 to the last)",
		kind, ft.where, ft.how, since(promoted), since(issued), since(used), since(all), opened+again.tickets, first.opened+again.opened, late+lateAgain)
	f.x.want(opened > 0, "%s: no ticket was spent before the primary went", ft.how)
	f.x.want(first.opened+again.opened == 0, "%s: tickets that were spent before opened %d sockets", ft.how, first.opened+again.opened)
	return nil
}

// prepare issues tickets at the primary that is to go, and returns when its replicas have them.
func (f *failoverRun) prepare(ctx context.Context, kind string, old *redistest.Server) (spent []*spendable, err error) {
	for len(spent) < failoverSpent {
		f.tries++
		client := fmt.Sprintf("spender-%d", f.tries)
		t, err := f.askOn(ctx, client)
		if err != nil {
			return nil, err
		}
		if kind == "cluster" {
			if at, err := f.at(t); err != nil {
				return nil, err
			} else if at != old {
				continue
			}
		}
		spent = append(spent, &spendable{t, client})
	}
	answers, err := old.DoAll([]string{"SET", f.beside(spent[0]), "1", "PX", "1000"}, []string{"WAIT", "1", "5000"})
	if err != nil {
		return nil, err
	}
	if n, ok := answers[1].(int64); !ok || n < 1 {
		return nil, fmt.Errorf("no replica has the tickets: %v", answers)
	}
	return spent, nil
}

// lag is killed, but that no replica has seen the tickets being spent.
func (f *failoverRun) lag(ctx context.Context, slot int, old *redistest.Server, spent []*spendable) (opened int, err error) {
	replicas, err := f.replicas(old)
	if err != nil {
		return 0, err
	}
	err = f.site.Try(func() {
		for _, r := range replicas {
			r.Pause()
		}
		// The kernel would keep for a stopped replica what it was sent. So it is sent more than the kernel takes.
		if _, err := old.Do("SET", f.beside(spent[0]), strings.Repeat("x", stuffing), "PX", "1000"); err != nil {
			f.site.Fatal(err)
		}
		if opened, err = f.spendAll(ctx, spent); err != nil {
			f.site.Fatal(err)
		}
		old.Kill()
		for _, r := range replicas {
			r.Continue()
		}
		f.follows(slot, old)
	})
	return opened, err
}

// stuffing is more than fits between two sockets of loopback: net.ipv4.tcp_rmem is at most 32 MiB, and tcp_wmem 4.
const stuffing = 48 << 20

// replicas are those that a primary knows.
func (f *failoverRun) replicas(old *redistest.Server) (all []*redistest.Server, err error) {
	info, err := old.Do("INFO", "replication")
	if err != nil {
		return nil, err
	}
	for _, s := range f.servers {
		_, port, _ := strings.Cut(s.Addr(), ":")
		if strings.Contains(fmt.Sprint(info), ",port="+port+",") {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the primary has no replica: %v", info)
	}
	return all, nil
}

// some are opened tickets of a time.
func (f *failoverRun) some(from, to time.Time) (some []*spendable) {
	opened := f.h.opened(from, to)
	for _, ticket := range slices.Sorted(maps.Keys(opened)) {
		if t := f.known(ticket); t != nil && len(some) < failoverReplays {
			some = append(some, &spendable{t, opened[ticket]})
		}
	}
	return some
}

// concerned are the clients whose tickets are at the primary that goes.
func (f *failoverRun) concerned(where string) []string {
	others := slices.DeleteFunc(slices.Clone(f.clients), func(c string) bool { return slices.Contains(f.victims, c) })
	if where == "nodes" && len(others) > 0 {
		return others
	}
	return f.victims
}

// resumed waits until each client has a new ticket and has opened it.
// issued and used are of the first of those concerned, all is of the last of all.
func (f *failoverRun) resumed(ctx context.Context, from time.Time, concerned []string) (issued, used, all time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, failoverPatience)
	defer cancel()
	earlier := func(a, b time.Time) time.Time {
		if a.IsZero() || b.Before(a) {
			return b
		}
		return a
	}
	missing := slices.Clone(f.clients)
	for {
		missing = slices.DeleteFunc(missing, func(client string) bool {
			i, o := f.h.since(from, client)
			if o.IsZero() {
				return false
			}
			if slices.Contains(concerned, client) { // others may not have noticed anything
				issued, used = earlier(issued, i), earlier(used, o)
			}
			if o.After(all) {
				all = o
			}
			return true
		})
		if len(missing) == 0 {
			return issued, used, all, nil
		}
		if err := rest(ctx, failoverPoll); err != nil {
			return issued, used, all, fmt.Errorf("%d of %d clients have not come in again: %w", len(missing), len(f.clients), err)
		}
	}
}
