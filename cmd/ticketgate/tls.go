package main

import (
	"context"
	"fmt"
	"time"

	"ticketgate/engine/secure"
	"ticketgate/internal/certs"
)

// buildTLS loads what the gate shows its clients; nil if it speaks no TLS.
func (g *gateway) buildTLS() (*secure.Options, error) {
	name := g.c.Listen.Gate.TLS
	entry, ok := g.c.TLS[name]
	if !ok {
		return nil, nil // none: config has checked the name
	}
	store, err := certs.Load(entry.Options())
	if err != nil {
		return nil, fmt.Errorf("tls.%s: %w", name, err)
	}
	g.certs[name] = store
	return &secure.Options{
		Config: store.Config,
		Log:    func(msg string, args ...any) { g.log.Warn(msg, args...) },
	}, nil
}

// certsEvery is how often the files of certificates are looked at.
const certsEvery = 500 * time.Millisecond

// watchCerts takes new certificates into use as they come.
func (g *gateway) watchCerts(ctx context.Context) {
	for name, store := range g.certs {
		go func() {
			t := time.NewTicker(certsEvery)
			defer t.Stop()
			store.Watch(ctx, t.C, func(err error) {
				if err != nil {
					g.log.Error("certificate not taken: the one before stays in use", "tls", name, "error", err)
					return
				}
				g.log.Info("certificate in use", "tls", name, "until", store.NotAfter())
			})
		}()
	}
}

// certEnds are when the certificates end, for the metrics.
func (g *gateway) certEnds() map[string]func() time.Time {
	ends := map[string]func() time.Time{}
	for name, store := range g.certs {
		ends[name] = store.NotAfter
	}
	return ends
}
