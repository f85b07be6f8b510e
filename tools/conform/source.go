package conform

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"unicode/utf8"
)

// source is what the messages of a subsection of 12 and 13 are cut from: always the same bytes, as compressible as their
// kind is.
type source struct {
	name   string
	binary bool
	text   func() string
}

// sources are in the order of the suite's subsections.
var sources = []source{
	{"JSON", false, once(jsonText)},
	{"a bitmap", true, once(bitmap)},
	{"prose, as binary", true, once(prose)},
	{"HTML", false, once(htmlText)},
	{"what is compressed already", true, once(compressed)},
}

const (
	sourceSeed  = 7692
	sourceBytes = 200 << 10 // longer than the longest message, 128 KiB
)

// once makes a source's content when it is wanted first.
func once(generate func(rnd *rand.Rand) string) func() string {
	return sync.OnceValue(func() string { return generate(rand.New(rand.NewPCG(sourceSeed, sourceSeed))) })
}

var words = strings.Fields(`der Geist die Zeit und das Glück über Höhen wo ein Wort noch fällt größer sein als alle Türme wenn es später
	Nächte gibt aus denen Bäche rauschen nicht mehr hören dürfen oder süß im Grünen ruhn bis morgen früh`)

// prose is text in a language with letters of two bytes.
func prose(rnd *rand.Rand) string {
	var b strings.Builder
	for b.Len() < sourceBytes {
		for range 5 + rnd.IntN(6) {
			b.WriteString(words[rnd.IntN(len(words))])
			b.WriteByte(' ')
		}
		b.WriteString("\n")
	}
	return b.String()
}

func jsonText(rnd *rand.Rand) string {
	var b strings.Builder
	for i := 0; b.Len() < sourceBytes; i++ {
		fmt.Fprintf(&b, `{"id":%d,"name":%q,"price":%.2f,"tags":[%q,%q],"open":%t},`, i, words[rnd.IntN(len(words))], rnd.Float64()*1000,
			words[rnd.IntN(len(words))], words[rnd.IntN(len(words))], rnd.IntN(2) == 0)
	}
	return b.String()
}

func htmlText(rnd *rand.Rand) string {
	var b strings.Builder
	for i := 0; b.Len() < sourceBytes; i++ {
		fmt.Fprintf(&b, "<tr class=\"row%d\"><td>%d</td><td><a href=\"/item/%x\">%s %s</a></td></tr>\n", i%2, i, rnd.Uint32(),
			words[rnd.IntN(len(words))], words[rnd.IntN(len(words))])
	}
	return b.String()
}

// bitmap is a grey slope with noise in its low bits.
func bitmap(rnd *rand.Rand) string {
	b := make([]byte, sourceBytes)
	for i := range b {
		b[i] = byte(i%512/2+i/512/2) + byte(rnd.IntN(4))
	}
	return string(b)
}

// compressed is noise: it does not get smaller.
func compressed(rnd *rand.Rand) string {
	b := make([]byte, sourceBytes)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return string(b)
}

// message takes n bytes out of text from at on, over its end and on from its beginning. Of text that must stay valid it
// takes up to 3 bytes less, and begins and ends between characters. It returns where the next one begins.
func message(text string, at, n int, binary bool) (msg []byte, next int) {
	msg = append(msg, text[at:min(at+n, len(text))]...)
	if len(msg) < n {
		msg = append(msg, text[:n-len(msg)]...)
	}
	if !binary {
		for !utf8.Valid(msg) {
			msg = msg[:len(msg)-1]
		}
	}
	return msg, (at + len(msg)) % len(text)
}
