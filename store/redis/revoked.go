package redis

import (
	"context"
	"crypto/rand"
	_ "embed" // the scripts
	"errors"
	"maps"
	"slices"

	"ticketgate/revoke"
)

// The log of revocations. Its keys stand under one hash tag, so that a script touches one slot of a cluster:
//
//	<prefix>{revoked}:all     hash, field = id              the revocation, as JSON
//	<prefix>{revoked}:order   zset, score = place           ids in the order of their publishing
//	<prefix>{revoked}:ends    zset, score = end in ms       when each may be forgotten
//	<prefix>{revoked}:state   hash                          history: drawn when the log began; last: the last place
//	<prefix>{revoked}:plans   hash, field = key id          the plan that the key has in the file of the node that started last
//	<prefix>{revoked}:news    channel                       an empty message says that something was added

//go:embed revoke_publish.lua
var revokePublishLua string

//go:embed revoke_read.lua
var revokeReadLua string

//go:embed revoke_plans.lua
var revokePlansLua string

// Revocations are small and few: they pass when Redis is out of memory.
var (
	scriptRevokePublish = newScript("#!lua flags=allow-oom", clockLua, revokePublishLua)
	scriptRevokeRead    = newScript("#!lua flags=no-writes", epochsLua, revokeReadLua)
	scriptRevokePlans   = newScript("#!lua flags=allow-oom", revokePlansLua)
)

func init() { scripts = append(scripts, scriptRevokePublish, scriptRevokeRead, scriptRevokePlans) }

// Revocations is the store's log of them.
func (s *Store) Revocations() revoke.Log { return revocations{s} }

type revocations struct{ s *Store }

func (c *commands) revokedKeys(names ...string) {
	for _, name := range names {
		c.buf = append(append(append(c.buf, c.prefix...), "{revoked}:"...), name...)
		c.next()
	}
	c.endKeys()
}

// news is the channel, without the prefix.
const news = "{revoked}:news"

func (r revocations) channel() string { return r.s.prefix + news }

// Publish implements revoke.Log.
func (r revocations) Publish(ctx context.Context, rs []revoke.Revocation) error {
	c := newCommands(r.s.prefix, 1)
	c.begin(scriptRevokePublish)
	c.revokedKeys("all", "order", "ends", "state")
	c.text(r.channel())
	c.text(rand.Text()) // names the history, if it begins with this
	c.int(revoke.Max)
	for i := range rs {
		c.text(rs[i].ID)
		c.int(rs[i].Until.UnixMilli())
		c.bytes(revoke.AppendText(nil, &rs[i]))
	}
	c.end()
	n, err := r.s.oneInt(ctx, c)
	if err == nil && n < 0 {
		err = revoke.ErrFull
	}
	return err
}

// Read implements revoke.Log.
func (r revocations) Read(ctx context.Context, p revoke.Place, most int) (page revoke.Page, err error) {
	c := newCommands(r.s.prefix, 1)
	c.begin(scriptRevokeRead)
	c.revokedKeys("all", "order", "state")
	c.text(p.History)
	c.int(int64(p.Seq))
	c.int(int64(most))
	c.end()
	m, err := r.s.one(ctx, c)
	if err != nil {
		return page, err
	}
	parts, err := m.ToArray()
	if err != nil || len(parts) < 3 {
		return page, errAnswer
	}
	history, err1 := parts[0].ToString()
	seq, err2 := number(&parts[1], 10, 64)
	more, err3 := parts[2].AsInt64()
	if errors.Join(err1, err2, err3) != nil {
		return page, errAnswer
	}
	page = revoke.Page{Next: revoke.Place{History: history, Seq: seq}, Reset: history != p.History, More: more == 1}
	for i := range parts[3:] {
		text, err := parts[3+i].AsBytes()
		if err != nil {
			return page, errAnswer
		}
		page.Texts = append(page.Texts, text)
	}
	return page, nil
}

// plansAtOnce is how many keys one call names.
const plansAtOnce = 500

// KeyPlans keeps the plans of keys, by id, and returns the former ones of those that had another.
func (s *Store) KeyPlans(ctx context.Context, plans map[string]string) (former map[string]string, err error) {
	former = map[string]string{}
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(plans)), plansAtOnce) {
		c := newCommands(s.prefix, 1)
		c.begin(scriptRevokePlans)
		c.revokedKeys("plans")
		for _, id := range ids {
			c.text(id)
			c.text(plans[id])
		}
		c.end()
		m, err := s.one(ctx, c)
		if err != nil {
			return former, err
		}
		changed, err := m.AsStrSlice()
		if err != nil || len(changed)%2 != 0 {
			return former, errAnswer
		}
		for i := 0; i < len(changed); i += 2 {
			former[changed[i]] = changed[i+1]
		}
	}
	return former, nil
}

// Watch implements revoke.Log, on a connection of its own to the primary that keeps the list of nodes. In a cluster all nodes hear what
// is published at one.
func (r revocations) Watch(ctx context.Context, changed func()) error {
	p := r.s.nodesPrimary()
	if p == nil {
		return errUnknown
	}
	r.s.subscribeAt(ctx, p, news, func([]byte) { changed() }, func(up bool) {
		if up {
			changed()
		}
	})
	if ctx.Err() == nil {
		return errBroken
	}
	return ctx.Err()
}
