package redis

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"time"

	"ticketgate/ticket"
)

// A ticket that its owner has taken back leaves a note, under its subject's tag:
//
//	<prefix>{tag}:x:<ticket hash>  string, PX = life    owner hash (16 bytes)

//go:embed look.lua
var lookLua string

//go:embed note.lua
var noteLua string

var (
	scriptLook = newScript("#!lua flags=no-writes", lookLua)
	scriptNote = newScript("#!lua flags=allow-oom", noteLua)
)

func init() { scripts = append(scripts, scriptLook, scriptNote) }

var _ ticket.Looker = (*Store)(nil)

func (c *commands) noteKey(s ticket.Subject, h ticket.Hash) {
	c.tag(s, 'x')
	c.hash(h)
}

// Look implements ticket.Looker.
func (s *Store) Look(ctx context.Context, u ticket.Subject, h ticket.Hash, owner string) (l ticket.Look, err error) {
	c := newCommands(s.prefix, 1)
	c.begin(scriptLook)
	c.ticketKey(u, h)
	c.noteKey(u, h)
	c.endKeys()
	c.end()
	m, err := s.one(ctx, c)
	if err != nil {
		return l, err
	}
	parts, err := m.ToArray()
	if err != nil || len(parts) != 2 {
		return l, errAnswer
	}
	value, err1 := parts[0].AsBytes()
	note, err2 := parts[1].AsBytes()
	if errors.Join(err1, err2) != nil {
		return l, errAnswer
	}
	const head = len(ticket.SecretHash{}) + 16 // and the owner's hash, then the grant
	if len(value) > head {
		l.Grant = value[head:]
	}
	by := ownerHash(u, owner)
	l.Revoked = len(note) > 0 && (owner == "" || string(note) == string(by[:]))
	return l, nil
}

// Note implements ticket.Looker.
func (s *Store) Note(ctx context.Context, u ticket.Subject, h ticket.Hash, owner string, life time.Duration) error {
	by := ownerHash(u, owner)
	c := newCommands(s.prefix, 1)
	c.begin(scriptNote)
	c.noteKey(u, h)
	c.endKeys()
	c.bytes(by[:])
	c.int(max(1, life.Milliseconds()))
	c.end()
	_, err := s.oneInt(ctx, c)
	return err
}
