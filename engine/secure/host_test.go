package secure_test

import (
	"testing"

	"ticketgate/engine/secure"
)

// TestHostMatches: 421 is for who asked for one name and then calls for another.
func TestHostMatches(t *testing.T) {
	for _, row := range []struct {
		sni, host string
		want      bool
	}{
		{"rt.example.com", "rt.example.com", true},
		{"rt.example.com", "RT.Example.COM", true},
		{"RT.example.com", "rt.example.com", true},
		{"rt.example.com", "rt.example.com:9443", true},
		{"rt.example.com", "rt.example.com.", true},
		{"rt.example.com", "rt.example.com.:9443", true},
		{"rt.example.com.", "rt.example.com", true},
		{"", "rt.example.com", true},
		{"", "[::1]:9443", true},
		{"", "192.0.2.1", true},
		{"rt.example.com", "", false},
		{"rt.example.com", ":9443", false},
		{"rt.example.com", "example.com", false},
		{"rt.example.com", "rt.example.com.evil.test", false},
		{"rt.example.com", "evil.test", false},
		{"rt.example.com", "rt.example.co", false},
		{"rt.example.com", "rt.example.com..", false},
		{"rt.example.com", "192.0.2.1:9443", false},
		{"rt.example.com", "[::1]:9443", false},
		{"rt.example.com", "[::1]", false},
		{"rt.example.com", "rt.example.com:9443:9443", false},
		{"k.example.com", "\u212a.example.com", false}, // Kelvin
	} {
		if got := secure.HostMatches(row.sni, row.host); got != row.want {
			t.Errorf("%q on a connection for %q: %v", row.host, row.sni, got)
		}
	}
}
