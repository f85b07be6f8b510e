package redis

import (
	"crypto/sha1"
	_ "embed" // the scripts
	"encoding/hex"
	"strconv"
	"strings"

	"ticketgate/ticket"
)

// Keys. All of one subject stand under one hash tag (four hex digits), so that a script touches one slot of a cluster:
//
//	<prefix>{tag}:t:<ticket hash>  string, PX = life             secret hash (32 bytes), owner hash (16 bytes), grant
//	<prefix>{tag}:r:<subject>      zset, score = end in ms       ticket hashes: one reservation per unused ticket, which may outlive it
//	<prefix>{tag}:h:<subject>      hash, field = incarnation     count:number of the sockets that incarnation holds
//	<prefix>{nodes}:entries        hash, field = incarnation     an entry of renew.lua each: living incarnations, and the dead for an hour
//	<prefix>{nodes}:state          hash                          the list's own history, and the epochs of all shards
//
// Neither locator nor secret stands in Redis, only keyed hashes of them.

//go:embed epochs.lua
var epochsLua string

//go:embed clock.lua
var clockLua string

//go:embed held.lua
var heldLua string

//go:embed issue.lua
var issueLua string

//go:embed redeem.lua
var redeemLua string

//go:embed assert.lua
var assertLua string

//go:embed ask.lua
var askLua string

//go:embed revoke.lua
var revokeLua string

//go:embed used.lua
var usedLua string

//go:embed renew.lua
var renewLua string

//go:embed publish.lua
var publishLua string

// A script is run by its SHA-1 (EVALSHA) and loaded when the server does not know it. Redis runs it as one step: nothing else
// happens in between. It begins with the functions that it shares with others, and with no more of them, because each run
// makes them anew.
type script struct{ text, sha string }

// Only issue makes anything new, so only issue is refused when Redis is out of memory ("allow-oom" on the others): tickets
// that exist can be spent, and slots given back.
var (
	scriptIssue   = newScript("#!lua", epochsLua, clockLua, heldLua, issueLua)
	scriptRedeem  = newScript("#!lua flags=allow-oom", epochsLua, heldLua, redeemLua)
	scriptAssert  = newScript("#!lua flags=allow-oom", epochsLua, heldLua, assertLua)
	scriptAsk     = newScript("#!lua flags=allow-oom", epochsLua, askLua) // not no-writes, which replicas answer too
	scriptRevoke  = newScript("#!lua flags=allow-oom", revokeLua)
	scriptUsed    = newScript("#!lua flags=no-writes", clockLua, usedLua)
	scriptRenew   = newScript("#!lua flags=allow-oom", epochsLua, clockLua, renewLua)
	scriptPublish = newScript("#!lua flags=allow-oom", publishLua)

	scripts = []*script{scriptIssue, scriptRedeem, scriptAssert, scriptAsk, scriptRevoke, scriptUsed, scriptRenew, scriptBank, scriptPublish}
)

func newScript(shebang string, parts ...string) *script {
	text := shebang + "\n" + strings.Join(parts, "\n")
	sum := sha1.Sum([]byte(text)) // the name Redis gives it, no secret
	return &script{text, hex.EncodeToString(sum[:])}
}

// A command is one run of a script.
type command struct {
	script *script
	keys   []string
	args   []string
}

// commands builds a batch in one buffer: a few allocations for all of it. What it is given is copied, because a caller
// that gives up leaves while the batch may still be on its way.
type commands struct {
	prefix string
	buf    []byte
	ends   []int // of each key or argument in buf
	marks  []mark
}

// mark is where a command's keys and arguments end in ends.
type mark struct {
	script     *script
	keys, args int
}

func newCommands(prefix string, n int) *commands {
	const fields, size = 9, 256 // of a redeem, the only one that comes by the hundred beside assert
	return &commands{prefix, make([]byte, 0, n*size), make([]int, 0, n*fields), make([]mark, 0, n)}
}

// begin starts a command; its keys follow, then args, then its arguments.
func (c *commands) begin(s *script) { c.marks = append(c.marks, mark{script: s}) }

func (c *commands) next() { c.ends = append(c.ends, len(c.buf)) }

func (c *commands) tag(s ticket.Subject, kind byte) {
	c.buf = append(append(c.buf, c.prefix...), '{')
	c.buf = appendHex(c.buf, uint64(s.Tag()), 4)
	c.buf = append(c.buf, '}', ':', kind, ':')
}

func (c *commands) ticketKey(s ticket.Subject, h ticket.Hash) {
	c.tag(s, 't')
	c.hash(h)
}

func (c *commands) subjectKey(s ticket.Subject, kind byte) {
	c.tag(s, kind)
	c.hex(uint64(s), 16)
}

func (c *commands) nodesKey(name string) {
	c.buf = append(append(append(c.buf, c.prefix...), "{nodes}:"...), name...)
	c.next()
}

// endKeys ends the keys of a command.
func (c *commands) endKeys() { c.marks[len(c.marks)-1].keys = len(c.ends) }

func (c *commands) hash(h ticket.Hash) { c.buf = hex.AppendEncode(c.buf, h[:]); c.next() }

func (c *commands) bytes(b []byte) { c.buf = append(c.buf, b...); c.next() }

func (c *commands) text(s string) { c.buf = append(c.buf, s...); c.next() }

func (c *commands) hex(v uint64, digits int) { c.buf = appendHex(c.buf, v, digits); c.next() }

func (c *commands) int(v int64) { c.buf = strconv.AppendInt(c.buf, v, 10); c.next() }

func (c *commands) flag(b bool) {
	if b {
		c.text("1")
	} else {
		c.text("0")
	}
}

func (c *commands) incarnations(is []ticket.Incarnation) {
	for _, i := range is {
		c.hex(uint64(i), 16)
	}
}

// held writes the arguments that hold in prelude.lua wants.
func (c *commands) held(h *ticket.Held) {
	c.hex(uint64(h.Incarnation), 16)
	c.int(int64(h.Count))
	c.number(h.Number)
}

// number writes 20 digits, as the scripts compare them.
func (c *commands) number(v uint64) { c.buf = appendPadded(c.buf, v); c.next() }

// end ends a command.
func (c *commands) end() { c.marks[len(c.marks)-1].args = len(c.ends) }

// build returns the commands. c is used up.
func (c *commands) build() []command {
	all, fields, from := string(c.buf), make([]string, len(c.ends)), 0
	for i, end := range c.ends {
		fields[i], from = all[from:end], end
	}
	out, at := make([]command, len(c.marks)), 0
	for i, m := range c.marks {
		out[i] = command{m.script, fields[at:m.keys], fields[m.keys:m.args]}
		at = m.args
	}
	return out
}

func appendHex(dst []byte, v uint64, digits int) []byte {
	const hexDigits = "0123456789abcdef"
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[v>>shift&15])
	}
	return dst
}

// appendPadded writes v as 20 decimal digits.
func appendPadded(dst []byte, v uint64) []byte {
	var b [20]byte
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
	return append(dst, b[:]...)
}
