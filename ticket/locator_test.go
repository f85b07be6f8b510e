package ticket_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"ticketgate/ticket"
)

// TestCMAC is RFC 4493 section 4.
func TestCMAC(t *testing.T) {
	key := unhex(t, "2b7e151628aed2a6abf7158809cf4f3c")
	msg := unhex(t, "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	for n, want := range map[int]string{
		0:  "bb1d6929e95937287fa37d129b756746",
		16: "070a16b46b4d4144f79bdd9dd04a287c",
		40: "dfa66747de9ae63030ca32611497c827",
		64: "51f0bebf7e3b9d92fc49741779363cfe",
	} {
		got, err := ticket.CMAC(key, msg[:n])
		if err != nil || hex.EncodeToString(got[:]) != want {
			t.Errorf("%d bytes: %x, %v, want %s", n, got, err, want)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	epoch   ticket.Epoch   = 0xfeedbeef
	subject ticket.Subject = 0x0123456789abcdef
)

// all is a store with the same epoch for every subject.
type all ticket.Epoch

func (a all) Epoch(ticket.Subject) ticket.Epoch { return ticket.Epoch(a) }

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// keyLine is a line of a key file with a key made of b.
func keyLine(id string, b byte) string {
	return id + ":" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32))
}

func ring(t testing.TB, lines ...string) *ticket.KeyRing {
	t.Helper()
	k, err := ticket.ParseKeyRing(strings.Join(lines, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mint(t testing.TB, k *ticket.KeyRing) *ticket.Minted {
	t.Helper()
	m, err := k.NewMinter(rand.Reader).Mint(noon.Add(30*time.Second), epoch, subject, 0)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMintThenCheck(t *testing.T) {
	k := ring(t, keyLine("a", 1))
	m, err := k.NewMinter(rand.Reader).Mint(noon.Add(30*time.Second+time.Nanosecond), epoch, subject, 0x1234)
	if err != nil {
		t.Fatal(err)
	}
	c := k.NewChecker()
	l, err := c.Check(m.Text[:], noon, all(epoch))
	if err != nil || l != m.Locator {
		t.Fatalf("check: %+v, %v, want %+v", l, err, m.Locator)
	}
	if l.Expiry != uint32(noon.Unix())+31 || l.Epoch != epoch || l.Subject != subject || l.Node != 0x1234 {
		t.Errorf("locator %+v", l)
	}
	if got := c.Hash(&l); got != m.Hash {
		t.Errorf("hash %x, minted %x", got, m.Hash)
	}
	if got, ok := c.SecretHash(m.Secret[:]); !ok || got != m.SecretHash {
		t.Errorf("secret hash %x %v, minted %x", got, ok, m.SecretHash)
	}
	if bytes.Contains(m.Hash[:], l.Random[:4]) {
		t.Error("the hash shows the random part")
	}
}

// TestLayout pins the wire: nodes of two versions must read each other's locators.
func TestLayout(t *testing.T) {
	k := ring(t, keyLine("a", 1))
	m, err := k.NewMinter(strings.NewReader(strings.Repeat("r", 16)+strings.Repeat("s", 32))).Mint(time.Unix(0x01020304, 0), 0x05060708, 0x090a0b0c0d0e0f10, 0x1112)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(string(m.Text[:]))
	if err != nil {
		t.Fatal(err)
	}
	want := "1a" + "01020304" + "05060708" + "090a0b0c0d0e0f10" + "1112" + strings.Repeat("72", 16)
	if got := hex.EncodeToString(raw[:35]); got != want {
		t.Errorf("covered part %s, want %s", got, want)
	}
	if len(raw) != 51 || len(m.Text) != ticket.LocatorLen || ticket.LocatorLen != 68 {
		t.Errorf("%d bytes, %d characters", len(raw), len(m.Text))
	}
	if got := string(m.Secret[:]); got != "tgs_"+strings.Repeat("c3Nz", 10)+"c3M" || len(got) != ticket.SecretLen {
		t.Errorf("secret %q", got)
	}
}

// refused are texts made from a good one, and why they are refused.
var refused = []struct {
	name   string
	change func(good string) string
	want   error
}{
	{"empty", func(string) string { return "" }, ticket.ErrMalformed},
	{"short", func(s string) string { return s[:67] }, ticket.ErrMalformed},
	{"long", func(s string) string { return s + "A" }, ticket.ErrMalformed},
	{"padding", func(s string) string { return s + "=" }, ticket.ErrMalformed},
	{"padding inside", func(s string) string { return s[:66] + "==" }, ticket.ErrMalformed},
	{"line feed inside", func(s string) string { return s[:40] + "\n" + s[41:] }, ticket.ErrMalformed},
	{"carriage return and line feed at the end", func(s string) string { return s[:66] + "\r\n" }, ticket.ErrMalformed},
	{"standard alphabet", func(s string) string { return s[:40] + "+/" + s[42:] }, ticket.ErrMalformed},
	{"space", func(s string) string { return s[:40] + " " + s[41:] }, ticket.ErrMalformed},
	{"high byte", func(s string) string { return s[:40] + "\xff" + s[41:] }, ticket.ErrMalformed},
	{"NUL", func(s string) string { return s[:40] + "\x00" + s[41:] }, ticket.ErrMalformed},
	{"version 0", func(s string) string { return "A" + s[1:] }, ticket.ErrMalformed},
	{"version 2", func(s string) string { return "I" + s[1:] }, ticket.ErrMalformed},
	{"zeros of version 1", func(string) string { return "E" + strings.Repeat("A", 67) }, ticket.ErrForged},
	{"another MAC", func(s string) string { return s[:64] + strings.Repeat("A", 4) }, ticket.ErrForged},
}

func TestCheckRefuses(t *testing.T) {
	k := ring(t, keyLine("a", 1))
	good := string(mint(t, k).Text[:])
	c := k.NewChecker()
	for _, r := range refused {
		l, err := c.Check([]byte(r.change(good)), noon, all(epoch))
		if !errors.Is(err, r.want) || l != (ticket.Locator{}) {
			t.Errorf("%s: %+v, %v, want %v", r.name, l, err, r.want)
		}
	}
	for _, r := range []struct {
		name  string
		now   time.Time
		epoch ticket.Epoch
		want  error
	}{
		{"just before expiry", noon.Add(30*time.Second - 1), epoch, nil},
		{"at expiry", noon.Add(30 * time.Second), epoch, ticket.ErrExpired},
		{"long after", noon.AddDate(50, 0, 0), epoch, ticket.ErrExpired},
		{"another epoch", noon, epoch + 1, ticket.ErrEpoch},
		{"epoch not known", noon, 0, ticket.ErrEpoch},
	} {
		if _, err := c.Check([]byte(good), r.now, all(r.epoch)); !errors.Is(err, r.want) {
			t.Errorf("%s: %v, want %v", r.name, err, r.want)
		}
	}
	zero, err := k.NewMinter(rand.Reader).Mint(noon.Add(time.Second), 0, subject, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Check(zero.Text[:], noon, all(0)); !errors.Is(err, ticket.ErrEpoch) {
		t.Errorf("epoch 0 matches itself: %v", err)
	}
}

// TestLineFeedForTheLastCharacter: base64 skips line feeds, and what the text no longer says still stands in the scratch
// space from the call before. Whether the spare bits happen to be zero is a matter of luck, so many are tried.
func TestLineFeedForTheLastCharacter(t *testing.T) {
	k := ring(t, keyLine("a", 1))
	c := k.NewChecker()
	for range 64 {
		m := mint(t, k)
		if _, err := c.Check(m.Text[:], noon, all(epoch)); err != nil {
			t.Fatal(err)
		}
		m.Text[ticket.LocatorLen-1] = '\n'
		if _, err := c.Check(m.Text[:], noon, all(epoch)); !errors.Is(err, ticket.ErrMalformed) {
			t.Fatalf("locator %q: %v", m.Text, err)
		}
		if _, ok := c.SecretHash(m.Secret[:]); !ok {
			t.Fatal("secret refused")
		}
		m.Secret[ticket.SecretLen-1] = '\n'
		if _, ok := c.SecretHash(m.Secret[:]); ok {
			t.Fatalf("secret %q accepted", m.Secret)
		}
	}
}

// TestEveryBitCounts flips each bit of the 51 bytes: nothing but the MAC's verdict shows.
func TestEveryBitCounts(t *testing.T) {
	k := ring(t, keyLine("a", 1), keyLine("b", 2))
	m := mint(t, k)
	raw, err := base64.RawURLEncoding.DecodeString(string(m.Text[:]))
	if err != nil {
		t.Fatal(err)
	}
	c := k.NewChecker()
	for bit := range 8 * len(raw) {
		raw[bit/8] ^= 1 << (bit % 8)
		want := ticket.ErrForged
		if bit >= 4 && bit < 8 {
			want = ticket.ErrMalformed // the version
		}
		if _, err := c.Check([]byte(base64.RawURLEncoding.EncodeToString(raw)), noon, all(epoch)); !errors.Is(err, want) {
			t.Errorf("bit %d: %v, want %v", bit, err, want)
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
}

func TestRotation(t *testing.T) {
	older, newer := keyLine("2026-10", 1), keyLine("2026-11", 2)
	before, during, after := ring(t, older), ring(t, newer, older), ring(t, newer)
	m, n := mint(t, before), mint(t, during)
	for _, c := range []struct {
		name string
		by   *ticket.KeyRing
		text []byte
		want error
	}{
		{"old ticket, both keys", during, m.Text[:], nil},
		{"new ticket, both keys", during, n.Text[:], nil},
		{"new ticket, old key only", before, n.Text[:], ticket.ErrForged},
		{"old ticket, new key only", after, m.Text[:], ticket.ErrForged},
		{"new ticket, new key only", after, n.Text[:], nil},
	} {
		if _, err := c.by.NewChecker().Check(c.text, noon, all(epoch)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	// Nodes whose rings differ name tickets and clients alike, as long as the last key stays.
	a, b := before.NewChecker(), during.NewChecker()
	if a.Hash(&m.Locator) != b.Hash(&m.Locator) || b.Hash(&m.Locator) != m.Hash {
		t.Error("hash changed with a new first key")
	}
	if s, _ := b.SecretHash(m.Secret[:]); s != m.SecretHash {
		t.Error("secret hash changed with a new first key")
	}
	if before.Subject("client", "user-42") != during.Subject("client", "user-42") {
		t.Error("subject changed with a new first key")
	}
	if before.Subject("client", "user-42") == after.Subject("client", "user-42") {
		t.Error("subject is not keyed")
	}
}

// TestSameNumber: 40 ids have 16 numbers, so some keys share one. A locator of either is good.
func TestSameNumber(t *testing.T) {
	for i := range 40 {
		first, second := keyLine("a", 1), keyLine(fmt.Sprint("key-", i), 2)
		for _, k := range []*ticket.KeyRing{ring(t, first), ring(t, second)} {
			m := mint(t, k)
			if _, err := ring(t, first, second).NewChecker().Check(m.Text[:], noon, all(epoch)); err != nil {
				t.Errorf("key-%d: %v", i, err)
			}
		}
	}
}

func TestSubject(t *testing.T) {
	k := ring(t, keyLine("a", 1))
	seen := map[ticket.Subject]string{}
	for _, c := range [][2]string{{"client", "a"}, {"client", "b"}, {"key", "a"}, {"clien", "ta"}, {"client", ""}, {"", "client"}, {"client", strings.Repeat("x", 5000)}} {
		s := k.Subject(c[0], c[1])
		if other, dup := seen[s]; dup {
			t.Errorf("%q and %q are one subject", c, other)
		}
		seen[s] = c[0] + "/" + c[1]
		if s != k.Subject(c[0], c[1]) {
			t.Errorf("%q is not stable", c)
		}
	}
	if tag := ticket.Subject(1<<63 | 0x7fff).Tag(); tag != 0x3fff {
		t.Errorf("tag %x", tag)
	}
}

func TestSecretHash(t *testing.T) {
	c := ring(t, keyLine("a", 1)).NewChecker()
	good := string(ticket.AppendSecret(nil, [32]byte{31: 0xff}))
	if _, ok := c.SecretHash([]byte(good)); !ok {
		t.Fatalf("%q refused", good)
	}
	for name, bad := range map[string]string{
		"empty": "", "prefix only": "tgs_", "short": good[:46], "long": good + "A", "no prefix": "xxx_" + good[4:],
		"upper case prefix": "TGS_" + good[4:], "spare bits": good[:46] + "9", "line feed": good[:20] + "\n" + good[21:],
		"padding": good[:46] + "=", "standard alphabet": good[:20] + "+" + good[21:],
	} {
		if h, ok := c.SecretHash([]byte(bad)); ok || h != (ticket.SecretHash{}) {
			t.Errorf("%s: %q accepted", name, bad)
		}
	}
}

func TestParseKeyRing(t *testing.T) {
	good := keyLine("a", 1)
	if _, err := ticket.ParseKeyRing("# comment\n\n  " + good + " \r\n#" + good + "\n" + strings.TrimRight(keyLine("b.c-d_1", 2), "=") + "\n"); err != nil {
		t.Errorf("good file: %v", err)
	}
	var many []string
	for i := range 17 {
		many = append(many, keyLine(fmt.Sprint("k", i), byte(i)))
	}
	secret := "AQEB"
	for name, c := range map[string]struct{ text, want string }{
		"empty":         {"", "found 0 keys"},
		"comments only": {"# a\n", "found 0 keys"},
		"too many":      {strings.Join(many, "\n"), "found 17 keys"},
		"no colon":      {good + "\n" + strings.Replace(good, ":", "", 1), "line 2"},
		"no id":         {good[1:], "line 1"},
		"odd id":        {"\n" + keyLine("a b", 1), "line 2"},
		"long id":       {keyLine(strings.Repeat("a", 65), 1), "line 1"},
		"short key":     {"a:" + good[6:], "line 1"},
		"long key":      {"a:AQEB" + good[2:], "line 1"},
		"not base64":    {strings.Replace(good, "AQEB", "AQ!B", 1), "line 1"},
		"spare bits":    {"a:" + strings.Repeat("AQEB", 10) + "AQF=", "line 1"},
		"id twice":      {good + "\n\n" + keyLine("a", 2), "line 3"},
	} {
		_, err := ticket.ParseKeyRing(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v, want %q and no key", name, err, c.want)
		}
	}
}

// TestBrokenRandomSource: no ticket, and no weaker source.
func TestBrokenRandomSource(t *testing.T) {
	k := ring(t, keyLine("a", 1))
	for _, n := range []int{0, 1, 16, 47} {
		m, err := k.NewMinter(io.LimitReader(rand.Reader, int64(n))).Mint(noon, epoch, subject, 0)
		if err == nil || m != nil {
			t.Errorf("minted with %d random bytes", n)
		}
		if _, err := ticket.NewKeyRing(io.LimitReader(rand.Reader, int64(min(n, 31)))); err == nil {
			t.Errorf("key ring made of %d random bytes", n)
		}
	}
	for _, at := range []time.Time{time.Unix(-2, 0), time.Unix(1<<32, 0), {}} {
		if _, err := k.NewMinter(rand.Reader).Mint(at, epoch, subject, 0); err == nil {
			t.Errorf("minted for %v", at)
		}
	}
	if _, err := ticket.NewKeyRing(rand.Reader); err != nil {
		t.Error(err)
	}
}

// TestMintedShowsNothing: no verb of fmt prints what opens a socket.
func TestMintedShowsNothing(t *testing.T) {
	m := mint(t, ring(t, keyLine("a", 1)))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		for _, out := range []string{fmt.Sprintf(verb, m), fmt.Sprintf(verb, *m)} {
			if out != "[minted ticket]" {
				t.Errorf("%s prints %q", verb, out)
			}
		}
	}
}

func TestMintConcurrently(t *testing.T) {
	k := ring(t, keyLine("a", 1))
	minter := k.NewMinter(rand.Reader)
	var mu sync.Mutex
	seen := map[ticket.Hash]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c := k.NewChecker()
			for range 500 {
				m, err := minter.Mint(noon.Add(time.Second), epoch, k.Subject("client", "a"), 0)
				if err != nil {
					t.Error(err)
					return
				}
				l, err := c.Check(m.Text[:], noon, all(epoch))
				if err != nil || c.Hash(&l) != m.Hash {
					t.Errorf("check: %v", err)
				}
				mu.Lock()
				if seen[m.Hash] {
					t.Error("a ticket was minted twice")
				}
				seen[m.Hash] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestNothingAllocates(t *testing.T) {
	k := ring(t, keyLine("a", 1), keyLine("b", 2))
	m := mint(t, k)
	c := k.NewChecker()
	forged := append([]byte(nil), m.Text[:]...)
	forge(forged)
	garbage := bytes.Repeat([]byte{0xff}, ticket.LocatorLen)
	var l ticket.Locator
	for name, f := range map[string]func(){
		"check good":    func() { l, _ = c.Check(m.Text[:], noon, all(epoch)) },
		"check forged":  func() { _, _ = c.Check(forged, noon, all(epoch)) },
		"check short":   func() { _, _ = c.Check(forged[:9], noon, all(epoch)) },
		"check garbage": func() { _, _ = c.Check(garbage, noon, all(epoch)) },
		"hash":          func() { c.Hash(&l) },
		"secret hash":   func() { c.SecretHash(m.Secret[:]) },
	} {
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

func FuzzCheck(f *testing.F) {
	k := ring(f, keyLine("a", 1), keyLine("b", 2))
	m, err := k.NewMinter(strings.NewReader(strings.Repeat("x", 48))).Mint(noon.Add(time.Minute), epoch, subject, 0) // alike in all workers
	if err != nil {
		f.Fatal(err)
	}
	good := string(m.Text[:])
	f.Add([]byte(good))
	for _, r := range refused {
		f.Add([]byte(r.change(good)))
	}
	c := k.NewChecker()
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := c.Check(text, noon, all(epoch))
		if (err == nil) != (string(text) == good) {
			t.Fatalf("%q: %+v, %v", text, l, err)
		}
		if err != nil && l != (ticket.Locator{}) {
			t.Fatalf("%q is refused and shows %+v", text, l)
		}
	})
}

func FuzzParseKeyRing(f *testing.F) {
	f.Add(keyLine("a", 1))
	f.Add("# x\n\n" + keyLine("a", 1) + "\r\n" + keyLine("b", 2))
	f.Add("a:AQEB\na:")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ticket.ParseKeyRing(text)
		if (k == nil) != (err != nil) {
			t.Fatalf("%v, %v", k, err)
		}
	})
}

func BenchmarkCheckGood(b *testing.B)   { benchmarkCheck(b, func([]byte) {}) }
func BenchmarkCheckForged(b *testing.B) { benchmarkCheck(b, forge) }

// A key number that no key has costs one MAC all the same.
func BenchmarkCheckNoSuchKey(b *testing.B) { benchmarkCheck(b, func(text []byte) { copy(text, "EA") }) }

// forge changes the MAC and keeps the text well formed.
func forge(text []byte) {
	if text[60] == 'A' {
		text[60] = 'B'
	} else {
		text[60] = 'A'
	}
}

func benchmarkCheck(b *testing.B, change func(text []byte)) {
	k := ring(b, keyLine("a", 1), keyLine("b", 2))
	m := mint(b, k)
	change(m.Text[:])
	c := k.NewChecker()
	if _, err := c.Check(m.Text[:], noon, all(epoch)); errors.Is(err, ticket.ErrMalformed) {
		b.Fatal("measures a text that is not read to its end")
	}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.Check(m.Text[:], noon, all(epoch))
	}
}

func BenchmarkHash(b *testing.B) {
	k := ring(b, keyLine("a", 1))
	m, c := mint(b, k), k.NewChecker()
	b.ReportAllocs()
	for b.Loop() {
		c.Hash(&m.Locator)
	}
}

func BenchmarkSecretHash(b *testing.B) {
	k := ring(b, keyLine("a", 1))
	m, c := mint(b, k), k.NewChecker()
	b.ReportAllocs()
	for b.Loop() {
		c.SecretHash(m.Secret[:])
	}
}

func BenchmarkMint(b *testing.B) {
	m := ring(b, keyLine("a", 1)).NewMinter(rand.Reader)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Mint(noon, epoch, subject, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSubject(b *testing.B) {
	k := ring(b, keyLine("a", 1))
	b.ReportAllocs()
	for b.Loop() {
		k.Subject("client", "user-42")
	}
}
