package model_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"ticketgate/store/model"
	"ticketgate/ticket"
)

// A story is a list of lines
//
//	time  who  words...  | answer
//
// of renewals. who is one letter. Words: enter (the first; else a renewal that the last one acknowledged precedes), n=number,
// acked=number, lease=30s, former=b,c, on=shard:epoch,... The answer is "lost", "stale", "old shard,...", or what the view
// shows: its flags, and who lives (b) or is dead (-b), with the epochs by which he is registered.
//
// With who = "*" the line is about the server: epoch=2 (another history of the same data), durable, save, back (to the data
// of save), flush (to none).
type story struct {
	primary model.Primary
	saved   *model.State
	number  map[byte]uint64
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestNodes(t *testing.T) {
	for name, lines := range map[string]string{
		"a lease ends": `
			0s       a enter           | young a
			0s       b enter           | young a b
			20s      a                 | young a b
			29.999s  b                 | young a b
			50s      a                 | lost
			50s      b                 | -a b
			80s      c enter lease=2h  | young -a -b c
			80s      a                 | lost
			80s      d                 | lost`,
		"its end is told for an hour": `
			0s       a enter           | young a
			50s      b enter lease=3h  | young -a b
			3649s    b lease=3h        | young -a b
			3650s    b lease=3h        | young b
			3650s    a                 | lost`,
		"proven over": `
			0s       a enter             | young a
			0s       b enter former=a,x  | young -a b -x
			1s       a                   | lost
			1s       x enter             | lost
			2s       b former=a          | young -a b -x
			3599.9s  c enter             | -a -b c -x
			3600s    c                   | -b c`,
		"executed late": `
			0s       a enter n=5       | young a
			1s       a n=5             | stale
			1s       a n=4 on=0:7      | stale
			2s       b enter           | young a b
			31s      a n=3             | stale
			31s      b                 | young -a b
			31s      a n=2             | stale
			31s      a n=6             | lost`,
		"a new history": `
			0s       a enter  | young a
			0s       b enter  | young a b
			0s       c enter  | young a b c
			10s      * epoch=2
			11s      a        | grace young a b c
			40s      a        | grace a b c
			41s      b        | grace a b c
			45.999s  a        | grace a b c
			46s      a        | a b -c
			46s      c        | lost`,
		"a new history that has lost an entry": `
			0s       a enter         | young a
			1s       * save
			1s       b enter on=0:9  | young a b(0:9)
			10s      * back
			10s      * epoch=2
			11s      a               | grace young a
			12s      b on=0:9        | grace young again a b(0:0)
			13s      b on=0:9        | grace young a b(0:9)
			45.999s  c acked=7       | grace again a b(0:9) c
			46s      d acked=7       | lost`,
		"nobody missing after a restart from disk": `
			0s       a enter  | young a
			0s       b enter  | young a b
			0s       c enter former=d  | young a b c -d
			10s      * durable
			10s      * epoch=2
			11s      a        | grace young a b c -d
			12s      b        | grace young a b c -d
			13s      c        | young a b c -d
			41s      a        | lost`,
		"nobody missing, but there may be a replica with less": `
			0s       a enter  | young a
			10s      * epoch=2
			11s      a        | grace young a`,
		"two new histories in one grace": `
			0s       a enter  | young a
			10s      * epoch=2
			11s      a        | grace young a
			12s      * durable
			12s      * epoch=3
			13s      a        | grace young a
			47.999s  b enter  | grace a b
			48s      b        | -a b`,
		"two new histories, the first long over": `
			0s       a enter  | young a
			1s       * epoch=2
			2s       a lease=1h | grace young a
			37s      * durable
			37s      * epoch=3
			37s      a        | a`,
		"disk is not asked for by who waits for replicas": `
			0s       a enter     | young a
			0s       * durable
			0s       * epoch=2
			1s       a replicas  | grace young a
			2s       a           | young a`,
		"somebody missing after a restart from disk": `
			0s       a enter  | young a
			0s       b enter  | young a b
			10s      * durable
			10s      * epoch=2
			11s      a        | grace young a b
			45.999s  a        | grace a b
			46s      a        | a -b`,
		"an acknowledged renewal is missing": `
			0s       a enter  | young a
			0s       b enter  | young a b
			1s       * durable
			1s       * save
			2s       a        | young a b
			3s       * back
			3s       * epoch=2
			4s       b        | grace young a b
			5s       a        | grace young a b
			20s      a        | grace young a b
			20s      b        | grace young a b
			38.999s  a        | grace a b
			39s      a        | a b`,
		"one is missing in the same history": `
			0s       a enter  | young a
			0s       b enter  | young a b
			1s       * save
			40s      * back
			40s      a n=9 acked=8 | lost
			41s      c enter  | -a -b c
			42s      * save
			43s      c        | -a -b c
			44s      * back
			45s      c        | grace -a -b c
			79.999s  c        | grace -a -b c
			80s      c        | -a -b c`,
		"all is gone in the same history": `
			0s       a enter on=0:9  | young a(0:9)
			40s      * flush
			41s      a on=0:9        | grace young again a(0:0)
			42s      b enter         | grace young a(0:0) b
			43s      a on=0:9        | grace young a(0:9) b`,
		"a first start is no loss": `
			0s       a                | lost
			0s       a enter acked=0  | young a`,
		"another epoch": `
			0s       a enter on=0:10        | young a(0:10)
			0s       b enter on=0:10,5:70   | young a(0:10) b(0:10,5:70)
			1s       a on=0:11              | young a(0:11) b(0:10,5:70)
			2s       b on=0:10,5:71         | young old 0
			3s       a on=0:11,5:70         | young a(0:11,5:70) b(0:10,5:70)
			5s       c enter on=0:12,5:72   | young old 0,5
			6s       b on=0:11,5:71         | young a(0:11,5:70) b(0:11,5:71)
			6s       a on=0:10,5:71         | young old 0
			7s       b on=0:0,5:71          | young a(0:11,5:70) b(0:0,5:71)
			8s       c enter on=0:11        | young a(0:11,5:70) b(0:0,5:71) c(0:11)
			9s       b                      | young a(0:11,5:70) b c(0:11)
			33s      c on=0:12              | young -a b c(0:12)`,
		"refused is not prolonged": `
			0s       a enter on=0:10  | young a(0:10)
			0s       b enter on=0:10  | young a(0:10) b(0:10)
			20s      a on=0:11        | young a(0:11) b(0:10)
			20s      b on=0:10        | young old 0
			30s      a on=0:11        | young a(0:11) -b`,
		"who is alone may go back": `
			0s       a enter on=0:10  | young a(0:10)
			1s       a on=0:11        | young a(0:11)
			2s       a on=0:10        | young a(0:10)
			3s       b enter on=0:11  | young old 0
			4s       b enter on=0:10  | young a(0:10) b(0:10)
			5s       b on=0:11        | young old 0
			40s      c enter on=0:11  | -a -b c(0:11)`,
		"who has not registered keeps nobody from it": `
			0s       a enter on=0:10  | young a(0:10)
			0s       b enter on=0:10  | young a(0:10) b(0:10)
			1s       b on=0:0         | young a(0:10) b(0:0)
			2s       a on=0:0         | young a(0:0) b(0:0)
			3s       a on=0:12        | young a(0:12) b(0:0)`,
	} {
		t.Run(name, func(t *testing.T) {
			s := story{primary: model.Primary{Self: ticket.ShardEpoch{Epoch: 1}, State: model.NewState()}, number: map[byte]uint64{}}
			for line := range strings.Lines(lines) {
				if line = strings.TrimSpace(line); line == "" {
					continue
				}
				step, want, _ := strings.Cut(line, "|")
				if got := s.tell(t, strings.Fields(step)); got != strings.TrimSpace(want) {
					t.Fatalf("%s: %s", line, got)
				}
			}
		})
	}
}

func (s *story) tell(t *testing.T, words []string) string {
	after, err := time.ParseDuration(words[0])
	if err != nil {
		t.Fatal(err)
	}
	if words[1] == "*" {
		s.server(t, words[2])
		return ""
	}
	who := words[1][0]
	before := s.number[who]
	r := &ticket.RenewRequest{Incarnation: ticket.Incarnation(who), Name: words[1], Lease: 30 * time.Second, Number: before + 1, Acked: before}
	for _, w := range words[2:] {
		s.word(t, r, w)
	}
	v, err := s.primary.Renew(r, noon.Add(after))
	switch {
	case errors.Is(err, ticket.ErrLeaseLost):
		return "lost"
	case errors.Is(err, ticket.ErrStale):
		return "stale"
	case err != nil:
		return err.Error()
	}
	if len(v.Old) == 0 {
		s.number[who] = r.Number
	}
	if v.Seen != s.primary.Self || !v.Time.Equal(noon.Add(after)) {
		t.Fatalf("%v: seen %+v at %v", words, v.Seen, v.Time)
	}
	return told(&v)
}

func (s *story) word(t *testing.T, r *ticket.RenewRequest, w string) {
	key, value, _ := strings.Cut(w, "=")
	switch key {
	case "enter":
		r.Enter, r.Acked = true, 0
	case "replicas":
		r.Replicas = 1
	case "n":
		r.Number = number(t, value)
	case "acked":
		r.Acked = number(t, value)
	case "lease":
		d, err := time.ParseDuration(value)
		if err != nil {
			t.Fatal(err)
		}
		r.Lease = d
	case "former":
		for f := range strings.SplitSeq(value, ",") {
			r.Former = append(r.Former, ticket.Incarnation(f[0]))
		}
	case "on":
		for on := range strings.SplitSeq(value, ",") {
			shard, epoch, _ := strings.Cut(on, ":")
			r.Registered = append(r.Registered, ticket.ShardEpoch{Shard: ticket.Shard(number(t, shard)), Epoch: ticket.Epoch(number(t, epoch))})
		}
	default:
		t.Fatalf("no such word: %s", w)
	}
}

func (s *story) server(t *testing.T, w string) {
	switch key, value, _ := strings.Cut(w, "="); key {
	case "epoch":
		s.primary.Self = ticket.ShardEpoch{Epoch: ticket.Epoch(number(t, value)), Prev: s.primary.Self.Epoch}
	case "durable":
		s.primary.Durable = true
	case "save":
		s.saved = s.primary.State.Clone()
	case "back":
		s.primary.State = s.saved
	case "flush":
		s.primary.State = model.NewState()
	default:
		t.Fatalf("no such word: %s", w)
	}
}

func number(t *testing.T, s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func told(v *ticket.View) string {
	var out []string
	for _, f := range []struct {
		name string
		set  bool
	}{{"grace", v.Grace}, {"young", v.Young}, {"again", v.Again}} {
		if f.set {
			out = append(out, f.name)
		}
	}
	if len(v.Old) > 0 {
		return strings.Join(append(out, "old", strings.ReplaceAll(strings.Trim(fmt.Sprint(v.Old), "[]"), " ", ",")), " ")
	}
	for _, n := range v.Nodes {
		text := string(rune(n.Incarnation))
		if n.Dead {
			text = "-" + text
		}
		var on []string
		for _, r := range n.Registered {
			on = append(on, fmt.Sprintf("%d:%d", r.Shard, r.Epoch))
		}
		if len(on) > 0 {
			text += "(" + strings.Join(on, ",") + ")"
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

// TestFormerEpochs: the last 64 epochs that a shard has left are not come back to, unless by who is alone.
func TestFormerEpochs(t *testing.T) {
	p := model.Primary{Self: ticket.ShardEpoch{Epoch: 1}, State: model.NewState()}
	renew := func(i ticket.Incarnation, n uint64, e ticket.Epoch) bool {
		v, err := p.Renew(&ticket.RenewRequest{Incarnation: i, Lease: time.Minute, Number: n, Acked: n - 1, Enter: n == 1,
			Registered: []ticket.ShardEpoch{{Shard: 3, Epoch: e}}}, noon)
		if err != nil {
			t.Fatal(err)
		}
		return len(v.Old) == 0
	}
	for e := range ticket.Epoch(70) { // 1 to 70
		if !renew(1, uint64(e)+1, e+1) {
			t.Fatalf("alone, refused epoch %d", e+1)
		}
	}
	if !renew(2, 1, 70) {
		t.Fatal("refused the current epoch")
	}
	for e := ticket.Epoch(6); e < 70; e++ {
		if renew(2, 2, e) {
			t.Fatalf("went back to epoch %d", e)
		}
	}
	if !renew(2, 2, 5) {
		t.Error("epoch 5 is still remembered, the 65th latest")
	}
}

// TestCrowded: the list is bounded; who stands in it goes on.
func TestCrowded(t *testing.T) {
	n := model.NewNodes(1)
	renew := func(r *ticket.RenewRequest) error {
		r.Lease = time.Minute
		_, err := n.Renew(ticket.ShardEpoch{Epoch: 1}, false, r, noon)
		return err
	}
	all := &ticket.RenewRequest{Incarnation: 11, Number: 1, Enter: true}
	for i := range ticket.Incarnation(4094) {
		all.Former = append(all.Former, 100+i)
	}
	if err := renew(all); err != nil {
		t.Fatal(err)
	}
	if err := renew(&ticket.RenewRequest{Incarnation: 1, Number: 1, Enter: true, Former: []ticket.Incarnation{2}}); !errors.Is(err, ticket.ErrUnavailable) {
		t.Errorf("two more: %v", err)
	}
	if err := renew(&ticket.RenewRequest{Incarnation: 1, Number: 1, Enter: true, Former: []ticket.Incarnation{100}}); err != nil {
		t.Errorf("one more, and the end of another: %v", err)
	}
	if err := renew(&ticket.RenewRequest{Incarnation: 2, Number: 1, Enter: true}); !errors.Is(err, ticket.ErrUnavailable) || !strings.Contains(err.Error(), "restarted") {
		t.Errorf("one too many: %v", err)
	}
	if err := renew(&ticket.RenewRequest{Incarnation: 11, Number: 2, Acked: 1}); err != nil {
		t.Errorf("one of them: %v", err)
	}
}

// TestKnownToBeNew: of a list that begins with its server nobody can be missing.
func TestKnownToBeNew(t *testing.T) {
	v, err := model.NewNodes(7).Renew(ticket.ShardEpoch{Epoch: 7}, false, &ticket.RenewRequest{Incarnation: 'a', Number: 1, Enter: true, Lease: time.Minute}, noon)
	if err != nil || told(&v) != "a" {
		t.Errorf("%s, %v", told(&v), err)
	}
}
