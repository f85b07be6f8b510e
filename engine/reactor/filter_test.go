package reactor_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"ticketgate/engine/reactor"
)

// toy is a filter with records of a two-byte length and bytes turned over. A record of length 0 says that nothing follows,
// one of 0xffff is broken.
type toy struct {
	d  *diary
	in []byte
}

var errToy = errors.New("broken record")

func (f *toy) Feed(_ *reactor.Loop, _ reactor.ID, wire []byte) { f.in = append(f.in, wire...) }

func (f *toy) Read(_ *reactor.Loop, _ reactor.ID, plain []byte) (int, error) {
	if len(plain) < reactor.RecordMax {
		panic("no room for a record")
	}
	if len(f.in) < 2 {
		return 0, nil
	}
	n := int(binary.BigEndian.Uint16(f.in))
	switch {
	case n == 0:
		return 0, io.EOF
	case n == 0xffff:
		return 0, errToy
	case n == 0xfffe:
		panic("toy")
	case len(f.in) < 2+n:
		return 0, nil
	}
	copy(plain, turn(f.in[2:2+n]))
	f.in = f.in[2+n:]
	return n, nil
}

func (f *toy) Write(l *reactor.Loop, id reactor.ID, plain []byte) error {
	if string(plain) == "unsayable" {
		return errToy
	}
	for part := range seq(plain, 16<<10) {
		if err := l.WriteWire(id, record(string(part))); err != nil {
			return err
		}
	}
	return nil
}

func (f *toy) CloseWrite(l *reactor.Loop, id reactor.ID) { _ = l.WriteWire(id, []byte{0, 0}) }

func (f *toy) Held() int { return len(f.in) }

func (f *toy) Gone(*reactor.Loop, reactor.ID) { f.d.add("gone") }

func seq(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 && yield(b[:min(n, len(b))]) {
			b = b[min(n, len(b)):]
		}
	}
}

func turn(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		out[i] = ^c
	}
	return out
}

func record(text string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(text))), turn([]byte(text))...)
}

func unrecord(t *testing.T, wire []byte) string {
	t.Helper()
	var text []byte
	for len(wire) >= 2 {
		n := int(binary.BigEndian.Uint16(wire))
		if n == 0 {
			text = append(text, '.')
		}
		text = append(text, turn(wire[2:2+n])...)
		wire = wire[2+n:]
	}
	if len(wire) != 0 {
		t.Fatalf("%d bytes of half a record", len(wire))
	}
	return string(text)
}

// filteredTwin has a toy on every socket.
func filteredTwin(t *testing.T, o reactor.Options, h *script) (*reactor.Memory, *diary) {
	t.Helper()
	d := &diary{}
	open := h.open
	h.open = func(l *reactor.Loop, id reactor.ID) {
		l.SetFilter(id, &toy{d: d})
		if open != nil {
			open(l, id)
		}
	}
	h.closed = func(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, _ error) { d.add("closed:%v", why) }
	o.Work = work
	m, _ := twin(t, o, h)
	return m, d
}

func TestFilterEcho(t *testing.T) {
	m, d := filteredTwin(t, reactor.Options{}, echo())
	p := m.Connect(client)
	texts := []string{"a", strings.Repeat("b", 16<<10), "c"}
	for _, cut := range []int{1 << 20, 1000, 1} {
		var want strings.Builder
		var wire []byte
		for _, s := range texts {
			wire = append(wire, record(s)...)
			want.WriteString(s)
		}
		var got []byte
		for part := range seq(wire, cut) {
			p.Write(part)
			m.Run()
			got = append(got, p.Read()...)
		}
		if unrecord(t, got) != want.String() {
			t.Errorf("cut at %d: wrong echo of %d bytes", cut, len(got))
		}
	}
	p.Write([]byte{0, 0})
	m.Run()
	if got := unrecord(t, p.Read()); got != "." || !p.Closed() {
		t.Errorf("after the peer's end: %q, closed %v; want our own end and FIN", got, p.Closed())
	}
	p.Close()
	m.Run()
	d.expect(t, "closed:eof gone")
}

func TestFilterWritesOfOneCallbackAreOneRecord(t *testing.T) {
	m, _ := filteredTwin(t, reactor.Options{}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		_ = l.Write(id, []byte("one "))
		b, _ := l.Reserve(id, 4)
		copy(b, "two ")
		_ = l.WriteLast(id, []byte("three"))
		if n := l.Queued(id); n != 13 {
			t.Errorf("%d bytes queued, want 13", n)
		}
		if n := l.Wired(id); n != 0 {
			t.Errorf("%d bytes wired before the callback has returned", n)
		}
		return len(in)
	}})
	p := m.Connect(client)
	p.Write(record("x"))
	m.Run()
	if got := p.Read(); !bytes.Equal(got, record("one two three")) {
		t.Errorf("got %q", got)
	}
}

func TestFilterClose(t *testing.T) {
	m, d := filteredTwin(t, reactor.Options{}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		_ = l.WriteLast(id, []byte("bye"))
		l.Close(id)
		return len(in)
	}})
	p := m.Connect(client)
	p.Write(record("x"))
	m.Run()
	if got := unrecord(t, p.Read()); got != "bye." || !p.Closed() {
		t.Errorf("got %q, closed %v: want the last word, the end of the records and FIN", got, p.Closed())
	}
	p.Close()
	m.Run()
	d.expect(t, "closed:local gone")
}

func TestFilterCloseWaitsForSlowPeer(t *testing.T) {
	m, _ := filteredTwin(t, reactor.Options{}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		_ = l.Write(id, bytes.Repeat([]byte("z"), 50_000))
		l.Close(id)
		return len(in)
	}})
	p := m.Connect(client)
	p.Window(1000)
	p.Write(record("x"))
	var got []byte
	for range 100 {
		m.Run()
		got = append(got, p.Read()...)
	}
	if text := unrecord(t, got); text != strings.Repeat("z", 50_000)+"." || !p.Closed() {
		t.Errorf("%d bytes arrived, closed %v", len(text), p.Closed())
	}
}

func TestFilterEnds(t *testing.T) {
	for name, c := range map[string]struct {
		wire []byte
		want string
		rst  bool
		say  string
	}{
		"a broken record":   {[]byte{0xff, 0xff}, "closed:filter gone", false, ""},
		"a panic":           {[]byte{0xff, 0xfe}, "closed:fault gone", true, ""},
		"an unsayable word": {record("say"), "closed:filter gone", false, "unsayable"},
	} {
		t.Run(name, func(t *testing.T) {
			m, d := filteredTwin(t, reactor.Options{}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
				if c.say != "" {
					_ = l.Write(id, []byte(c.say))
				}
				return len(in)
			}})
			p := m.Connect(client)
			p.Write(c.wire)
			m.Run()
			if !p.Closed() || p.WasReset() != c.rst {
				t.Errorf("closed %v, reset %v, want reset %v", p.Closed(), p.WasReset(), c.rst)
			}
			p.Close()
			m.Run()
			d.expect(t, c.want)
			if s, q, _ := m.Held(); s != 0 || q != 0 {
				t.Errorf("%d segments and %d queues are held", s, q)
			}
		})
	}
}

func TestFilterPauseKeepsWhatIsDecoded(t *testing.T) {
	var id reactor.ID
	got := &diary{}
	m, _ := filteredTwin(t, reactor.Options{}, &script{data: func(l *reactor.Loop, socket reactor.ID, in []byte) int {
		id = socket
		got.add("%d", len(in))
		l.Pause(id)
		return len(in)
	}})
	p := m.Connect(client)
	for range 6 {
		p.Write(record(strings.Repeat("r", 16<<10)))
	}
	m.Run()
	got.expect(t, "49152") // what fits beside a record in 64 KiB
	for _, want := range []string{"49152", ""} {
		run(m, func(l *reactor.Loop) { l.Resume(id) })
		got.expect(t, want)
	}
}

func TestFilterSetWhileDataIsUnderWay(t *testing.T) {
	d, got := &diary{}, &diary{}
	m, _ := twin(t, reactor.Options{}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		if bytes.HasPrefix(in, []byte("hi\n")) {
			l.SetFilter(id, &toy{d: d})
			return 3
		}
		if in[0] == 'h' {
			return 0
		}
		got.add("%s", in)
		return len(in)
	}})
	p := m.Connect(client)
	p.Write([]byte("h"))
	m.Run()
	p.Write(append([]byte("i\n"), record("rest")...))
	m.Run()
	got.expect(t, "rest")
	p.Write(record("more"))
	m.Run()
	got.expect(t, "more")
}

func TestFilterTakenAway(t *testing.T) {
	m, d := filteredTwin(t, reactor.Options{}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		_ = l.Write(id, in)
		if string(in) == "plain" {
			l.SetFilter(id, nil)
			_ = l.Write(id, []byte("!"))
		}
		return len(in)
	}})
	p := m.Connect(client)
	p.Write(record("plain"))
	m.Run()
	if got := p.Read(); !bytes.Equal(got, append(record("plain"), '!')) {
		t.Errorf("got %q", got)
	}
	p.Write([]byte("open"))
	m.Run()
	if got := string(p.Read()); got != "open" {
		t.Errorf("got %q", got)
	}
	p.Reset()
	m.Run()
	d.expect(t, "closed:reset")
}

func TestFilterQueueMax(t *testing.T) {
	m, _ := filteredTwin(t, reactor.Options{QueueMax: 1000}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		if err := l.Write(id, make([]byte, 600)); err != nil {
			t.Error(err)
		}
		if err := l.Write(id, make([]byte, 600)); err != nil { // what can be sent is sent first
			t.Error(err)
		}
		if err := l.Write(id, make([]byte, 600)); !errors.Is(err, reactor.ErrSlow) {
			t.Errorf("got %v, want ErrSlow", err)
		}
		return len(in)
	}})
	p := m.Connect(client)
	p.Window(602)
	p.Write(record("x"))
	m.Run()
}

func TestNoOffloadInMemory(t *testing.T) {
	var err error
	m, _ := filteredTwin(t, reactor.Options{}, &script{open: func(l *reactor.Loop, id reactor.ID) {
		err = l.Offload(id, nil, nil)
	}})
	p := m.Connect(client)
	m.Run()
	if !errors.Is(err, reactor.ErrNoOffload) {
		t.Errorf("got %v, want ErrNoOffload", err)
	}
	p.Write(record("still there"))
	m.Run()
	if p.Closed() {
		t.Error("the socket is closed")
	}
}

// TestFilterAllocations: passing through a filter costs the filter's own allocations only.
func TestFilterAllocations(t *testing.T) {
	f := &still{}
	m, _ := twin(t, reactor.Options{}, &script{
		open: func(l *reactor.Loop, id reactor.ID) { l.SetFilter(id, f) },
		data: echo().data,
	})
	p := m.Connect(client)
	text := make([]byte, 1000)
	once := func() {
		p.Write(text)
		m.Run()
		if len(p.Read()) != len(text) {
			t.Fatal("no echo")
		}
	}
	once()
	if n := testing.AllocsPerRun(100, once); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// still is a filter that changes nothing.
type still struct{ wire []byte }

func (f *still) Feed(_ *reactor.Loop, _ reactor.ID, wire []byte) { f.wire = wire }
func (f *still) Read(_ *reactor.Loop, _ reactor.ID, plain []byte) (int, error) {
	n := copy(plain, f.wire)
	f.wire = f.wire[n:]
	return n, nil
}
func (f *still) Write(l *reactor.Loop, id reactor.ID, plain []byte) error {
	return l.WriteWire(id, plain)
}
func (f *still) CloseWrite(*reactor.Loop, reactor.ID) {}
func (f *still) Held() int                            { return 0 }
func (f *still) Gone(*reactor.Loop, reactor.ID)       {}
