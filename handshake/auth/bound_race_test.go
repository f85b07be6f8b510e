//go:build race

package auth_test

// welchMax under the race detector, whose bookkeeping costs more for a word that another row last touched: t up to 30 for
// the same work. A missing hash is t over 3,000 here.
const welchMax = 100
