package limiter

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Options is one entry under plans.<name>.limits. A nil or empty field was not given.
type Options struct {
	Count        *int          `yaml:"count"`
	Rate         *Rate         `yaml:"rate"`
	Burst        *Size         `yaml:"burst"`
	Per          Per           `yaml:"per"`
	WhenFull     string        `yaml:"when_full"`
	WhenExceeded string        `yaml:"when_exceeded"`
	MaxDelay     time.Duration `yaml:"max_delay"`
	Hard         *bool         `yaml:"hard"`
	Counts       string        `yaml:"counts"`
	Window       string        `yaml:"window"`
	Scope        string        `yaml:"scope"`
	StoreDown    string        `yaml:"store_down"`
}

// Defaults is limit_defaults: what a limit says that does not say it itself.
type Defaults struct {
	Window    string `yaml:"window"`
	Scope     string `yaml:"scope"`
	StoreDown string `yaml:"store_down"`
}

// A Problem is one thing wrong in the configuration.
type Problem struct {
	Path []string // from the root: "plans", "free", "limits", "messages-in", "rate"
	Msg  string   // what is wrong and what would be right
}

// The names of limits, and for the last four what a limit of another name may count.
const (
	connections = "connections"
	tickets     = "tickets"
	MessagesIn  = "messages-in"
	MessagesOut = "messages-out"
	BytesIn     = "bytes-in"
	BytesOut    = "bytes-out"
)

var counted = []string{MessagesIn, MessagesOut, BytesIn, BytesOut}

// What holds where a plan says nothing, and how far values go.
const (
	defaultConnections = 10 // a client; a plan without the limit is not one without limit
	maxConnections     = 10_000_000
	maxName            = 40 // of a limit: "limit:<name>" is a close reason of at most 60 bytes

	defaultDelay = time.Second // when_exceeded: delay without max_delay
	leastDelay   = time.Millisecond
	longestDelay = time.Minute // a message that waits takes memory
)

var defaultTickets = Rate{N: 60, Per: time.Minute} // a client

// Compile checks the limits of one plan and returns them compiled, or every problem there is and no plan. Problems of
// defaults (path "limit_defaults", ...) are found with each plan anew.
func Compile(plan string, limits map[string]Options, defaults Defaults) (*Plan, []Problem) {
	c := compiler{plan: &Plan{
		Name:        plan,
		Connections: Connections{Count: defaultConnections, Per: PerClient},
		Tickets:     newTickets(defaultTickets, 0, PerClient, true),
	}}
	c.defaults(defaults)
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		c.name, c.at = name, []string{"plans", plan, "limits", name}
		c.limit(limits[name])
	}
	if n := len(c.plan.limits); n > rowWords {
		c.at = []string{"plans", plan, "limits"}
		c.problem("", "%d limits on messages and bytes; a plan may have %d", n, rowWords)
	}
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	c.plan.arrange()
	return c.plan, nil
}

// A compiler goes through one plan and collects problems.
type compiler struct {
	plan     *Plan
	problems []Problem
	name     string   // of the limit
	at       []string // its path

	otherwise Defaults
}

func (c *compiler) problem(key, format string, args ...any) {
	path := slices.Clone(c.at)
	if key != "" {
		path = append(path, key)
	}
	c.problems = append(c.problems, Problem{path, fmt.Sprintf(format, args...)})
}

// choice checks that value is empty or one of have; of those that only the product's plan knows it says so.
func (c *compiler) choice(key, value string, have []string, later ...string) {
	switch {
	case value == "" || slices.Contains(have, value):
	case slices.Contains(later, value):
		c.problem(key, "%q is not available in this version; use %s", value, oneOf(have))
	default:
		c.problem(key, "unknown value %q%s; use %s", value, nearest(value, have), oneOf(have))
	}
}

func oneOf(have []string) string {
	if len(have) == 1 {
		return fmt.Sprintf("%q", have[0])
	}
	return "one of " + strings.Join(have, ", ")
}

// foreign reports the keys of o that a limit of this kind does not have.
func (c *compiler) foreign(o *Options, keys ...string) {
	given := []struct {
		key string
		is  bool
	}{
		{"count", o.Count != nil}, {"rate", o.Rate != nil}, {"burst", o.Burst != nil}, {"when_full", o.WhenFull != ""},
		{"when_exceeded", o.WhenExceeded != ""}, {"max_delay", o.MaxDelay != 0}, {"hard", o.Hard != nil},
		{"counts", o.Counts != ""}, {"window", o.Window != ""}, {"scope", o.Scope != ""}, {"store_down", o.StoreDown != ""},
	}
	for _, g := range given {
		if g.is && slices.Contains(keys, g.key) {
			c.problem(g.key, "%s does not apply to %q", g.key, c.name)
		}
	}
}

func (c *compiler) defaults(d Defaults) {
	c.at = []string{"limit_defaults"}
	c.choice("window", d.Window, windows)
	c.choice("scope", d.Scope, scopes)
	c.choice("store_down", d.StoreDown, storeDowns)
	c.otherwise = d
}

// The values of window, scope and store_down.
var (
	windows    = []string{"token-bucket", "fixed"}
	scopes     = []string{"node", "cluster"}
	storeDowns = []string{"local", "deny", "allow"}
)

const fixed, cluster = "fixed", "cluster"

// modes reads window and scope. What a limit does not say itself is as limit_defaults has it, where that is possible: a
// default is for whom it fits.
func (c *compiler) modes(o *Options, per Per) (isFixed, isCluster bool) {
	before := len(c.problems)
	c.choice("window", o.Window, windows)
	c.choice("scope", o.Scope, scopes)
	own := per == PerConnection
	alone := own || per.Has(PerNode)
	switch {
	case own && o.Window == fixed:
		c.problem("window", "a fixed window is kept in the store, and a connection is gone when its socket is; use per: client, or window: token-bucket")
	case own && o.Scope == cluster:
		c.problem("scope", "a connection lives on one node, so scope: cluster says nothing; use per: client, or leave scope out")
	case alone && o.Scope == cluster:
		c.problem("scope", "per: node counts each node by itself, which scope: cluster contradicts; use per: plan for all nodes together, or leave scope out")
	case o.Window == fixed && o.Burst != nil:
		c.problem("burst", "a fixed window has no burst: all of its rate may come at once; leave burst out, or use window: token-bucket")
	}
	if len(c.problems) > before {
		return false, false
	}
	isFixed = o.Window == fixed || o.Window == "" && c.otherwise.Window == fixed && !own && o.Burst == nil
	isCluster = o.Scope == cluster || o.Scope == "" && c.otherwise.Scope == cluster && !alone
	return isFixed, isCluster
}

// down reads store_down, which a limit that does not ask the store may have as well.
func (c *compiler) down(o *Options) Down {
	c.choice("store_down", o.StoreDown, storeDowns)
	if o.StoreDown == "" {
		return downs[c.otherwise.StoreDown]
	}
	return downs[o.StoreDown]
}

// delay reads max_delay.
func (c *compiler) delay(o *Options, a Action) time.Duration {
	switch {
	case a != Delay && o.MaxDelay != 0:
		c.problem("max_delay", "max_delay is for when_exceeded: delay; leave it out, or use that")
	case o.MaxDelay != 0 && (o.MaxDelay < leastDelay || o.MaxDelay > longestDelay):
		c.problem("max_delay", "%v is out of range: %v to %v", o.MaxDelay, leastDelay, longestDelay)
	case a == Delay && o.MaxDelay == 0:
		return defaultDelay
	}
	return o.MaxDelay
}

// limit compiles the limit c.name.
func (c *compiler) limit(o Options) {
	switch {
	case c.name == connections:
		c.connections(&o)
	case c.name == tickets:
		c.tickets(&o)
	case o.Counts != "" && slices.Contains(counted, c.name) && o.Counts != c.name:
		c.problem("counts", "%q counts itself; give a limit that counts %s another name", c.name, o.Counts)
	case slices.Contains(counted, c.name):
		c.flow(&o, c.name)
	case o.Counts == "":
		names := append([]string{connections, tickets}, counted...)
		c.problem("", "unknown key %q under plans.%s.limits%s; a limit of your own says what it counts (counts: messages-in)",
			c.name, c.plan.Name, nearest(c.name, names))
	case len(c.name) > maxName || strings.Trim(c.name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		c.problem("", "a limit's name is at most %d of a-z, 0-9 and -", maxName)
	default:
		c.choice("counts", o.Counts, counted)
		if slices.Contains(counted, o.Counts) {
			c.flow(&o, o.Counts)
		}
	}
}

// connections compiles the number of sockets at once. It always counts in the whole cluster.
func (c *compiler) connections(o *Options) {
	c.foreign(o, "rate", "burst", "when_exceeded", "max_delay", "hard", "counts", "window", "scope", "store_down")
	c.choice("when_full", o.WhenFull, slices.Sorted(maps.Keys(whenFull)))
	c.plan.Connections.Full = whenFull[o.WhenFull] // Reject if it is not given
	c.per(&c.plan.Connections.Per, o.Per, notAtIssue)
	switch {
	case o.Count == nil:
		c.problem("", "no count: how many sockets at once, such as count: %d", defaultConnections)
	case *o.Count < 1 || *o.Count > maxConnections:
		c.problem("count", "%d is out of range: 1 to %d; 0 never means unlimited", *o.Count, maxConnections)
	default:
		c.plan.Connections.Count = uint32(*o.Count)
	}
}

// tickets compiles how often tickets may be asked for.
func (c *compiler) tickets(o *Options) {
	c.foreign(o, "count", "when_full", "max_delay", "counts")
	if slices.Contains(storeDowns, o.StoreDown) && o.StoreDown != "deny" {
		c.problem("store_down", "tickets fail closed while the store is down, since a ticket needs it as well; use \"deny\", or leave store_down out")
	} else {
		c.choice("store_down", o.StoreDown, storeDowns)
	}
	c.choice("when_exceeded", o.WhenExceeded, []string{"warn"})
	action := c.action(o, Close)
	per := PerClient
	c.per(&per, o.Per, notForTickets)
	isFixed, isCluster := c.modes(o, per)
	rate, burst, ok := c.rate(o, false)
	if ok {
		c.plan.Tickets = newTickets(rate, burst, per, action != Warn)
		c.plan.Tickets.Fixed, c.plan.Tickets.Cluster = isFixed, isCluster
	}
}

// flow compiles a limit on messages or bytes.
func (c *compiler) flow(o *Options, counts string) {
	c.foreign(o, "count", "when_full")
	c.choice("when_exceeded", o.WhenExceeded, slices.Sorted(maps.Keys(actions)))
	l := Limit{Name: c.name, Reason: "limit:" + c.name, Counts: counts, Per: PerConnection, Action: c.action(o, Close)}
	l.MaxDelay = c.delay(o, l.Action)
	c.per(&l.Per, o.Per, nil)
	l.Fixed, l.Cluster = c.modes(o, l.Per)
	l.Down = c.down(o)
	rate, burst, ok := c.rate(o, l.Bytes())
	if !ok {
		return
	}
	l.Rate, l.Burst, l.Meter = rate, burst, NewMeter(rate, burst)
	l.Index = len(c.plan.limits)
	c.plan.limits = append(c.plan.limits, l)
}

// action reads when_exceeded and hard, which must not contradict each other.
func (c *compiler) action(o *Options, otherwise Action) Action {
	a, given := actions[o.WhenExceeded]
	soft := o.Hard != nil && !*o.Hard
	switch {
	case given && soft && a != Warn:
		c.problem("hard", "hard: false only warns, which contradicts when_exceeded: %s; leave one of them out", o.WhenExceeded)
	case given && a == Warn && o.Hard != nil && *o.Hard:
		c.problem("hard", "hard: true contradicts when_exceeded: warn; leave one of them out")
	case soft:
		return Warn
	case given:
		return a
	}
	return otherwise
}

// rate reads rate and burst.
func (c *compiler) rate(o *Options, bytes bool) (r Rate, burst uint64, ok bool) {
	before := len(c.problems)
	switch {
	case o.Rate == nil:
		c.problem("", "no rate: how many in which time, such as rate: 3/1minute")
		return r, 0, false
	case o.Rate.check() != nil:
		c.problem("rate", "%v; %s", o.Rate.check(), example)
	case o.Rate.Bytes && !bytes:
		c.problem("rate", "%q is a size, but %q counts messages or tickets; write a number", o.Rate, c.name)
	case o.Burst != nil && *o.Burst == 0:
		c.problem("burst", "0 would admit nothing, and never means unlimited: at least 1")
	case o.Burst != nil && uint64(*o.Burst) > burstMax(*o.Rate):
		c.problem("burst", "a burst of %d is full again after more than 52 weeks; at most %d with rate %v", *o.Burst, burstMax(*o.Rate), o.Rate)
	}
	if len(c.problems) > before {
		return r, 0, false
	}
	r, burst = *o.Rate, o.Rate.N
	r.Bytes = bytes
	if o.Burst != nil {
		burst = uint64(*o.Burst)
	}
	return r, burst, true
}

// nearest suggests one of have for a word that is at most two letters away.
func nearest(word string, have []string) string {
	best, least := "", 3
	for _, h := range have {
		if d := distance(word, h); d < least {
			best, least = h, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the number of letters to insert, delete or replace between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
