package main

import (
	"slices"
	"testing"
)

// The bare programs stand in the tables, and are nobody's rival.
func TestComparison(t *testing.T) {
	m := &matrix{cells: []cell{{100, 32, 1}}, loads: [][]*load{{
		{name: ours, rounds: []sample{{rate: 100, cpu: 10}}}, {name: "gws", rounds: []sample{{rate: 50, cpu: 20}}}, {name: "epollecho", rounds: []sample{{rate: 200, cpu: 5}}},
	}}}
	for _, table := range m.comparison("Echo", "About.").tables {
		if row := table.Rows[0]; len(row) != len(table.Head) || !slices.Contains(table.Head, "epollecho") {
			t.Errorf("%q under %q", row, table.Head)
		}
	}
	if row := m.comparison("Echo", "About.").tables[0].Rows[0]; row[len(row)-1] != "2.00 times (gws)" {
		t.Errorf("%q", row)
	}
}

// Who has no echo still holds sockets; who has one is in both lists.
func TestIdleNames(t *testing.T) {
	all := idleNames()
	for _, name := range append(peerNames(), "centrifuge", "epollaccept") {
		if !slices.Contains(all, name) {
			t.Errorf("no %s in %q", name, all)
		}
	}
	if slices.Contains(peerNames(), "centrifuge") {
		t.Error("centrifuge has no echo")
	}
}
