package main

import (
	"encoding/json"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"ticketgate/handshake/auth"
)

// TestKeyCreate: the key that is printed opens with the entry that is printed.
func TestKeyCreate(t *testing.T) {
	hash := write(t, t.TempDir(), "key.hash", ring)
	args := []string{"key", "create", "--client", "app: one", "--plan", "free", "--product", "demo", "--id", "app-1",
		"--scope", "delegate", "--scope", "stream:echo", "--ip", "10.0.0.0/8", "--expires", "2030-01-31T00:00:00Z", "--hash-key", hash}

	text := ticketgate(t, "", nil, args...)
	if text.code != exitOK {
		t.Fatalf("%+v", text)
	}
	if !regexp.MustCompile(`\Atgk_app-1_[A-Za-z0-9_-]{43}\n\z`).MatchString(text.out) {
		t.Errorf("stdout is %q, want the key alone", text.out)
	}
	want := `- id: app-1
  hash: hmac-sha256:k1:HASH
  client: "app: one"
  product: demo
  plan: free
  scopes: [delegate, "stream:echo"]
  ip: [10.0.0.0/8]
  expires: "2030-01-31T00:00:00Z"
`
	if got := regexp.MustCompile(`k1:[A-Za-z0-9+/]{43}=`).ReplaceAllString(text.errors, "k1:HASH"); got != want {
		t.Errorf("the entry is\n%swant\n%s", got, want)
	}
	if strings.Contains(text.errors, strings.TrimSpace(text.out)) {
		t.Error("the entry shows the key")
	}

	object := ticketgate(t, "", nil, append(args, "-o", "json")...)
	var made struct {
		Key   string
		Entry struct {
			ID, Hash, Client, Product, Plan string
			Scopes                          []string
			IP                              []netip.Prefix
			Expires                         *time.Time
		}
	}
	if err := json.Unmarshal([]byte(object.out), &made); err != nil || object.errors != "" {
		t.Fatalf("-o json prints %+v: %v", object, err)
	}
	keys, err := auth.ParseRing(ring)
	if err != nil {
		t.Fatal(err)
	}
	table, problems := auth.NewKeys([]auth.Record{auth.Record(made.Entry)}, keys)
	if problems != nil {
		t.Fatal(problems)
	}
	day := time.Date(2029, 1, 1, 0, 0, 0, 0, time.UTC)
	id, err := table.Authenticate([]byte(made.Key), day, netip.MustParseAddr("10.1.2.3"))
	if err != nil || id.Client != "app: one" || !id.Has(auth.ScopeDelegate) || !id.MayOpen("echo") || id.MayOpen("clock") {
		t.Errorf("the key opens %+v, %v", id, err)
	}
	if _, err := table.Authenticate([]byte(strings.TrimSpace(text.out)), day, netip.MustParseAddr("10.1.2.3")); err == nil {
		t.Error("two calls made the same key")
	}
}

// TestKeyHash: the hash of a key is the one in its entry, with and without a line end.
func TestKeyHash(t *testing.T) {
	hash := write(t, t.TempDir(), "key.hash", ring)
	made := ticketgate(t, "", nil, "key", "create", "--client", "c", "--plan", "p", "--product", "q", "--hash-key", hash)
	for _, stdin := range []string{made.out, strings.TrimSpace(made.out), strings.TrimSpace(made.out) + "\r\nmore\n"} {
		got := ticketgate(t, stdin, nil, "key", "hash", "--hash-key", hash)
		if got.code != exitOK || !strings.Contains(made.errors, "hash: "+strings.TrimSpace(got.out)+"\n") {
			t.Errorf("%+v is not in the entry\n%s", got, made.errors)
		}
	}
	if id := regexp.MustCompile(`(?m)^- id: k[0-9a-f]{12}$`); !id.MatchString(made.errors) {
		t.Errorf("the entry has no random id:\n%s", made.errors)
	}
}
