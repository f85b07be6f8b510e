//go:build faults

package faults

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Variable says at which calls to panic: "message=10000,ticket=500" is every ten thousandth and every five hundredth. Its name has not
// the prefix of variables that stand for configuration.
const Variable = "GATE_FAULTS"

var (
	names = [kinds]string{"message", "head", "join", "ticket"}
	every = mustParse()
	calls [kinds]atomic.Uint64
)

func mustParse() (every [kinds]uint64) {
	text, _ := syscall.Getenv(Variable)
	for part := range strings.SplitSeq(text, ",") {
		name, number, _ := strings.Cut(part, "=")
		n, err := strconv.ParseUint(number, 10, 64)
		known := false
		for k := range names {
			if names[k] == name {
				every[k], known = n, true
			}
		}
		if text != "" && (!known || err != nil) {
			panic(fmt.Sprintf("%s: %q: want kind=number, of %q", Variable, part, names))
		}
	}
	return every
}

// Point panics if it is the kind's turn. secret becomes a part of the panic's value, which no trace may show.
func Point(k Kind, secret []byte) {
	if n := every[k]; n > 0 && calls[k].Add(1)%n == 0 {
		panic("injected: " + string(secret))
	}
}
