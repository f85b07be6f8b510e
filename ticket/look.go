package ticket

import (
	"context"
	"time"
)

// A Look is what a store has of a ticket.
type Look struct {
	Grant   []byte // what an unused one grants; nil: there is no unused one
	Revoked bool   // its owner has taken it back
}

// A Looker is a Store that tells about tickets without spending them. Any goroutine may call it.
type Looker interface {
	// Look tells about ticket h of subject u. owner "" is anybody's; to any other owner than that at issue a ticket that was taken back
	// is none. Whose an unused one is, and whether h is the subject's, its grant says.
	Look(ctx context.Context, u Subject, h Hash, owner string) (Look, error)
	// Note keeps for life that owner has taken h back.
	Note(ctx context.Context, u Subject, h Hash, owner string, life time.Duration) error
}
