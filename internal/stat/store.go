//go:build !race

package stat

func store(p *uint64, v uint64) { *p = v }
