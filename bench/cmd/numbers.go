package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// numbers is a flag: whole numbers from 1 on, by comma.
type numbers []int

// String implements flag.Value.
func (n *numbers) String() string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(*n), "[]"), " ", ",")
}

// Set implements flag.Value.
func (n *numbers) Set(text string) error {
	var all numbers
	for field := range strings.SplitSeq(text, ",") {
		v, err := strconv.Atoi(field)
		if err != nil || v < 1 {
			return errors.New("want whole numbers from 1 on, by comma, such as 100,1000")
		}
		all = append(all, v)
	}
	*n = all
	return nil
}

// have says that all of wanted are in n.
func (n numbers) have(wanted numbers) bool {
	return !slices.ContainsFunc(wanted, func(one int) bool { return !slices.Contains(n, one) })
}
