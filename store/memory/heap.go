package memory

// The heap of a stripe. Only the first ever leaves it, because a spent ticket stays until it expires.

func (t *stripe) push(u *record) {
	t.expiry = append(t.expiry, u)
	t.up(len(t.expiry) - 1)
}

func (t *stripe) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if t.expiry[parent].expiry <= t.expiry[i].expiry {
			return
		}
		t.swap(i, parent)
		i = parent
	}
}

func (t *stripe) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(t.expiry) {
			return
		}
		if right := child + 1; right < len(t.expiry) && t.expiry[right].expiry < t.expiry[child].expiry {
			child = right
		}
		if t.expiry[i].expiry <= t.expiry[child].expiry {
			return
		}
		t.swap(i, child)
		i = child
	}
}

func (t *stripe) swap(i, j int) { t.expiry[i], t.expiry[j] = t.expiry[j], t.expiry[i] }

// pop removes the record that expires first.
func (t *stripe) pop() *record {
	last := len(t.expiry) - 1
	first := t.expiry[0]
	t.swap(0, last)
	t.expiry[last] = nil
	t.expiry = t.expiry[:last]
	t.down(0)
	return first
}
