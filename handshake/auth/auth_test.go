package auth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"math/rand/v2"

	"ticketgate/handshake/auth"
)

var (
	noon  = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	local = netip.MustParseAddr("127.0.0.1")
)

// chacha is a random source that a test can repeat.
func chacha(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

func ringLine(id string, b byte) string {
	return id + ":" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune(b)), 32)))
}

func ring(t testing.TB, lines ...string) *auth.Ring {
	t.Helper()
	r, err := auth.ParseRing(strings.Join(lines, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// key makes a key with a complete record.
func key(t testing.TB, r *auth.Ring, id string) (string, auth.Record) {
	t.Helper()
	text, rec, err := auth.Generate(chacha(byte(len(id))), id, r)
	if err != nil {
		t.Fatal(err)
	}
	rec.Product, rec.Plan = "market-data", "gold"
	return text, rec
}

func keys(t testing.TB, r *auth.Ring, recs ...auth.Record) *auth.Keys {
	t.Helper()
	k, problems := auth.NewKeys(recs, r)
	if problems != nil {
		t.Fatal(problems)
	}
	return k
}

// other returns text with the character at i replaced by another of the alphabet.
func other(text string, i int) string {
	b := []byte(text)
	if b[i] == 'A' {
		b[i] = 'E' // both leave the two unused bits of a last character zero
	} else {
		b[i] = 'A'
	}
	return string(b)
}

func TestAuthenticate(t *testing.T) {
	old, now := ringLine("old", 'o'), ringLine("new", 'n')
	before := ring(t, old)
	after := ring(t, now, old)
	text, rec := key(t, before, "k-1")
	rec.Scopes = []string{auth.ScopeDelegate}
	rec.Client = "user-42"
	rotated, rotatedRec := key(t, after, "k-22")
	until := noon.Add(time.Minute)
	rotatedRec.Expires = &until
	rotatedRec.IP = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	k := keys(t, after, rec, rotatedRec)

	for _, c := range []struct {
		name, text string
		now        time.Time
		peer       string
		client     string
		err        error
	}{
		{"a key of the former hash key", text, noon, "127.0.0.1", "user-42", nil},
		{"no client in the record: its id", rotated, noon, "10.1.2.3", "k-22", nil},
		{"IPv4 on a dual-stack listener", rotated, noon, "::ffff:10.1.2.3", "k-22", nil},
		{"IPv6 with a zone", rotated, noon, "2001:db8::1%eth0", "k-22", nil},
		{"a moment before it expires", rotated, until.Add(-1), "10.1.2.3", "k-22", nil},
		{"expired", rotated, until, "10.1.2.3", "", auth.ErrExpired},
		{"from elsewhere", rotated, noon, "11.1.2.3", "", auth.ErrAddress},
		{"first byte wrong", other(text, len("tgk_k-1_")), noon, "127.0.0.1", "", auth.ErrKey},
		{"last byte wrong", other(text, len(text)-1), noon, "127.0.0.1", "", auth.ErrKey},
		{"the secret under another id", strings.Replace(text, "k-1", "k-22", 1), noon, "127.0.0.1", "", auth.ErrKey},
		{"unknown id", strings.Replace(text, "k-1", "k-2", 1), noon, "127.0.0.1", "", auth.ErrKey},
		{"empty", "", noon, "127.0.0.1", "", auth.ErrKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			who, err := k.Authenticate([]byte(c.text), c.now, netip.MustParseAddr(c.peer))
			if !errors.Is(err, c.err) || who.Client != c.client {
				t.Fatalf("client %q, error %v; want %q, %v", who.Client, err, c.client, c.err)
			}
		})
	}
	if who, _ := k.Authenticate([]byte(text), noon, local); !who.Has(auth.ScopeDelegate) || who.Has(auth.ScopeAuthorize) {
		t.Errorf("scopes %v", who.Scopes)
	}
	var none *auth.Keys
	if _, err := none.Authenticate([]byte(text), noon, local); !errors.Is(err, auth.ErrKey) {
		t.Errorf("no keys at all: %v", err)
	}
}

// A hash that is moved to another record opens nothing: the id is hashed too.
func TestHashBelongsToItsID(t *testing.T) {
	r := ring(t, ringLine("a", 'a'))
	text, rec := key(t, r, "one")
	rec.ID = "two"
	k := keys(t, r, rec)
	for _, s := range []string{text, strings.Replace(text, "one", "two", 1)} {
		if _, err := k.Authenticate([]byte(s), noon, local); !errors.Is(err, auth.ErrKey) {
			t.Errorf("moved hash: %v", err)
		}
	}
}

var malformed = []string{
	"", "tgk_", "tgk__", "tgk_a", "tgk_a_", "TGK_a_" + secret, "tgk_A_" + secret, "tgk_a b_" + secret, "tgk_a_" + secret[1:],
	"tgk_a_" + secret + "A", "tgk_a_" + secret[:42] + "B", // B leaves unused bits set: a second text for one secret
	"tgk_a_" + secret[:42] + "=", "tgk_a_" + secret[:42] + "+", "tgk_a_" + secret[:42] + "\n", " tgk_a_" + secret,
	"tgk_" + strings.Repeat("a", 33) + "_" + secret, "tgk_a_" + secret + "\x00", "tgs_a_" + secret, strings.Repeat("tgk_", 4096),
}

const secret = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func TestMalformedKeysHaveNoHash(t *testing.T) {
	r := ring(t, ringLine("a", 'a'))
	if _, err := r.Hash("tgk_a_" + secret); err != nil {
		t.Fatalf("the pattern of all rows itself: %v", err)
	}
	for _, s := range malformed {
		if _, err := r.Hash(s); err == nil {
			t.Errorf("%.60q has a hash", s)
		}
	}
}

func TestHashIsHMAC(t *testing.T) {
	r := ring(t, ringLine("first", 'f'), ringLine("second", 's'))
	for _, id := range []string{"a", "k-1", strings.Repeat("z", 32)} {
		text, rec := key(t, r, id)
		m := hmac.New(sha256.New, []byte(strings.Repeat("f", 32)))
		m.Write([]byte(text))
		if want := "hmac-sha256:first:" + base64.StdEncoding.EncodeToString(m.Sum(nil)); rec.Hash != want {
			t.Errorf("id %q: %s, want %s", id, rec.Hash, want)
		}
	}
}

func TestParseRing(t *testing.T) {
	good := ringLine("a", 'a')
	for _, c := range []struct{ text, want string }{
		{good, ""},
		{"# made by hand\n\n" + good + "\r\n" + ringLine("b", 'b') + "\n", ""},
		{"", "no key"},
		{"# only talk", "no key"},
		{"a", "line 1"},
		{"A:" + good[2:], "line 1"},
		{good + "\n" + good, `line 2: key "a" stands twice`},
		{"a:c2hvcnQ=", "32 bytes"},
		{good[:len(good)-1], "32 bytes"},
		{good + "AAAA", "32 bytes"},
	} {
		_, err := auth.ParseRing(c.text)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), good[2:10]) {
			t.Errorf("the error shows a key: %v", err)
		}
	}
	var many strings.Builder
	for i := range 17 {
		fmt.Fprintln(&many, ringLine(fmt.Sprint("k", i), byte('a'+i)))
	}
	if _, err := auth.ParseRing(many.String()); err == nil {
		t.Error("17 keys pass")
	}
}

func TestRecordProblems(t *testing.T) {
	r := ring(t, ringLine("a", 'a'))
	_, good := key(t, r, "one")
	change := func(f func(*auth.Record)) []auth.Record {
		rec := good
		f(&rec)
		return []auth.Record{rec}
	}
	for _, c := range []struct {
		field string
		recs  []auth.Record
	}{
		{"id", change(func(r *auth.Record) { r.ID = "One" })},
		{"id", []auth.Record{good, good}},
		{"hash", change(func(r *auth.Record) { r.Hash = "" })},
		{"hash", change(func(r *auth.Record) { r.Hash = strings.Replace(r.Hash, ":a:", ":b:", 1) })},
		{"hash", change(func(r *auth.Record) { r.Hash = strings.Replace(r.Hash, "sha256", "md5", 1) })},
		{"hash", change(func(r *auth.Record) { r.Hash += "AAAA" })},
		{"product", change(func(r *auth.Record) { r.Product = "" })},
		{"plan", change(func(r *auth.Record) { r.Plan = "" })},
		{"scopes", change(func(r *auth.Record) { r.Scopes = []string{"admin"} })},
		{"scopes", change(func(r *auth.Record) { r.Scopes = []string{"stream:"} })},
		{"ip", change(func(r *auth.Record) { r.IP = make([]netip.Prefix, 1) })},
	} {
		k, problems := auth.NewKeys(c.recs, r)
		if k != nil || len(problems) != 1 || problems[0].Field != c.field || problems[0].Index != len(c.recs)-1 {
			t.Errorf("want one problem with %s of the last record, have %v", c.field, problems)
		}
	}
}

func TestEveryKeyOfManyIsFound(t *testing.T) {
	r := ring(t, ringLine("a", 'a'))
	rnd := chacha(1)
	var texts []string
	var recs []auth.Record
	for i := range 5000 {
		text, rec, err := auth.Generate(rnd, fmt.Sprint("k", i), r)
		if err != nil {
			t.Fatal(err)
		}
		rec.Product, rec.Plan = "p", "q"
		texts, recs = append(texts, text), append(recs, rec)
	}
	k := keys(t, r, recs...)
	for i, text := range texts {
		if who, err := k.Authenticate([]byte(text), noon, local); err != nil || who.Key != recs[i].ID {
			t.Fatalf("key %d: %q, %v", i, who.Key, err)
		}
	}
}

func TestScopesNarrowStreams(t *testing.T) {
	for _, c := range []struct {
		scopes []string
		want   bool
	}{
		{nil, true}, {[]string{auth.ScopeDelegate}, true}, {[]string{"stream:chat"}, false},
		{[]string{"stream:chat", "stream:quotes"}, true}, {[]string{"stream:quotes2"}, false},
	} {
		if got := (&auth.Identity{Scopes: c.scopes}).MayOpen("quotes"); got != c.want {
			t.Errorf("%v: %v", c.scopes, got)
		}
	}
}

func TestGenerateNeedsItsSource(t *testing.T) {
	r := ring(t, ringLine("a", 'a'))
	if text, _, err := auth.Generate(iotest.ErrReader(errors.New("dry")), "a", r); err == nil || text != "" {
		t.Errorf("%q without randomness", text)
	}
	if _, _, err := auth.Generate(chacha(1), "a_b", r); err == nil {
		t.Error("an id with the separator in it")
	}
	a, _, _ := auth.Generate(chacha(1), "a", r)
	b, _, _ := auth.Generate(chacha(2), "a", r)
	if a == b {
		t.Error("two sources, one key")
	}
}

// A flood of wrong keys must not become work for the collector.
func TestAuthenticateDoesNotAllocate(t *testing.T) {
	r := ring(t, ringLine("a", 'a'))
	text, rec := key(t, r, "one")
	k := keys(t, r, rec)
	for _, s := range []string{text, other(text, len(text)-1), strings.Replace(text, "one", "two", 1), "tgk_bad"} {
		b := []byte(s)
		if n := testing.AllocsPerRun(200, func() { _, _ = k.Authenticate(b, noon, local) }); n != 0 {
			t.Errorf("%v allocations for %q", n, s[:7])
		}
	}
}

// The time of a refusal does not tell which half of a key is right.
func TestRefusalsTakeTheSameTime(t *testing.T) {
	r := ring(t, ringLine("a", 'a'), ringLine("b", 'b'))
	text, rec := key(t, r, "k-7f3")
	at := len("tgk_k-7f3_")
	cases := [][]byte{
		[]byte(strings.Replace(text, "k-7f3", "k-7f4", 1)), // unknown id
		[]byte(other(text, at)),                            // first byte wrong
		[]byte(other(text, len(text)-1)),                   // last byte wrong
	}
	const tries = 5 // a true difference shows in every one of them, noise and the luck of where a table lies do not
	var worst float64
	for range tries {
		k := keys(t, r, rec)
		if worst = worstWelch(cases, 20_000, func(b []byte) { _, _ = k.Authenticate(b, noon, local) }); worst <= welchMax {
			return
		}
	}
	t.Errorf("Welch t %.1f in the last of %d tries, want at most %v", worst, tries, welchMax)
}

// worstWelch times f on every case, n times in random order, and returns the largest |t| of all pairs. Samples outside the
// middle 90 % of all samples together are dropped, whichever case they are from: interrupts and first touches.
func worstWelch(cases [][]byte, n int, f func([]byte)) float64 {
	rnd := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	samples := make([][]float64, len(cases))
	text := make([]byte, len(cases[0])) // one buffer for all, lest the cache be measured
	for left := n * len(cases); left > 0; left-- {
		i := rnd.IntN(len(cases))
		copy(text, cases[i])
		begin := time.Now()
		f(text)
		samples[i] = append(samples[i], float64(time.Since(begin)))
	}
	all := slices.Sorted(slices.Values(slices.Concat(samples...)))
	low, high := all[len(all)/20], all[len(all)*19/20]
	var worst float64
	for i := range samples {
		for j := range i {
			worst = max(worst, welch(crop(samples[i], low, high), crop(samples[j], low, high)))
		}
	}
	return worst
}

func crop(samples []float64, low, high float64) []float64 {
	return slices.DeleteFunc(slices.Clone(samples), func(s float64) bool { return s < low || s > high })
}

func FuzzAuthenticate(f *testing.F) {
	r := ring(f, ringLine("a", 'a'))
	text, rec := key(f, r, "one")
	k := keys(f, r, rec)
	f.Add(text)
	f.Add(other(text, len(text)-1))
	for _, s := range malformed {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, err := k.Authenticate([]byte(s), noon, local)
		if (err == nil) != (s == text) {
			t.Fatalf("%q: %v", s, err)
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	r := ring(b, ringLine("a", 'a'))
	text, rec := key(b, r, "one")
	k := keys(b, r, rec)
	for _, c := range []struct{ name, text string }{
		{"right", text},
		{"adversarial unknown id", strings.Replace(text, "one", "two", 1)},
		{"adversarial malformed", "tgk_bad"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			text := []byte(c.text)
			for b.Loop() {
				_, _ = k.Authenticate(text, noon, local)
			}
		})
	}
}
