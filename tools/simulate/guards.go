package main

import (
	"fmt"
	"strings"

	"ticketgate/store/node/core"
)

// A guard is a rule that can be left out, to see what breaks.
type guard uint

const (
	guardGrace guard = 1 << iota
	guardOthers
	guardUnlisted
	guardEntryOnce
	guardAgain
	guardAnswer
	guardSync
	guardWait
	guardLeft
	guardYoung
	guardUnasserted

	guardNumber // readings are ignored if a later one stands there

	guardRenewal // so are renewals
	guardProof   // a former life is declared dead only when its process is gone
	guardTouch   // after a pause the lease is looked at before any socket
	guardEpoch   // a locator of another epoch is refused without asking
	guardMost    // a renewal waits for all replicas, not for all but one

	guardReservation // where nodes spend their own tickets, a reservation outlives its ticket
)

var guards = []struct {
	name string
	guard
	says string
}{
	{"number", guardNumber, "a reading is ignored if a later one stands there"},
	{"renewal", guardRenewal, "so is a renewal"},
	{"grace", guardGrace, "nothing is concluded from a list that may have lost entries"},
	{"young", guardYoung, "nothing is issued while the list has just begun, unless the store is known to be new"},
	{"others", guardOthers, "issue waits for all living nodes to register the epoch"},
	{"sync", guardSync, "everything is asserted under an epoch before it is registered"},
	{"answer", guardAnswer, "a redeem's answer is checked against the time, the present life, its lease and the epoch"},
	{"epoch", guardEpoch, "a locator of another epoch is refused"},
	{"left", guardLeft, "an epoch that was left is not taken again"},
	{"wait", guardWait, "a renewal is believed only when the replicas have it"},
	{"all", guardMost, "and all of them, not all but one"},
	{"proof", guardProof, "a former life is declared dead only when its process is gone"},
	{"touch", guardTouch, "after a pause the lease is looked at before any socket"},
	{"unlisted", guardUnlisted, "who is counted and not in the list is dead"},
	{"entry-once", guardEntryOnce, "a life that could not be entered for a lease is given up"},
	{"again", guardAgain, "who was entered again asserts everything again"},
	{"reservation", guardReservation, "where nodes spend their own tickets, a reservation outlives its ticket by a lease"},
	{"unasserted", guardUnasserted, "and a socket whose assert is not acknowledged by then is closed"},
}

// machineGuards are those that core.Options.Without knows, which have the same order.
func machineGuards(g guard) core.Guard {
	var out core.Guard
	for from, to := range map[guard]core.Guard{guardGrace: core.GuardGrace, guardOthers: core.GuardOthers, guardUnlisted: core.GuardUnlisted,
		guardEntryOnce: core.GuardEntryOnce, guardAgain: core.GuardAgain, guardAnswer: core.GuardAnswer, guardSync: core.GuardSync,
		guardWait: core.GuardWait, guardLeft: core.GuardLeft, guardYoung: core.GuardYoung, guardUnasserted: core.GuardUnasserted} {
		if g&from != 0 {
			out |= to
		}
	}
	return out
}

// parseGuards reads names, separated by commas.
func parseGuards(names string) (guard, error) {
	var out guard
	for name := range strings.SplitSeq(names, ",") {
		if name == "" {
			continue
		}
		g, err := parseGuard(name)
		if err != nil {
			return 0, err
		}
		out |= g
	}
	return out, nil
}

func parseGuard(name string) (guard, error) {
	var known []string
	for _, g := range guards {
		if g.name == name {
			return g.guard, nil
		}
		known = append(known, g.name)
	}
	return 0, fmt.Errorf("guard %q: there are %s", name, strings.Join(known, ", "))
}
