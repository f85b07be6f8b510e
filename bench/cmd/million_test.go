package main

import "testing"

// A gateway keeps a tenth of its descriptors for other things; several get unequal shares of what comes to one port.
func TestGatewaysFor(t *testing.T) {
	for _, c := range []struct{ sockets, files, want int }{
		{1, 20000, 1},
		{18000, 20000, 1},
		{18001, 20000, 2},
		{1000000, 20000, 59},
		{1000000, 4000000, 1},
	} {
		if got := gatewaysFor(c.sockets, c.files); got != c.want {
			t.Errorf("%d sockets, %d files: %d gateways, want %d", c.sockets, c.files, got, c.want)
		}
	}
}
