package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"ticketgate/bench/load"
)

func benchCompareCmd(e *env) *cobra.Command {
	var force bool
	output := "table"
	c := &cobra.Command{
		Use:   "compare A.json B.json",
		Short: "Show what changed between two runs",
		Long: `compare reads what two runs wrote with --json. Runs of different machines, settings or verbs, and INVALID ones, say nothing about
each other: it refuses them, unless --force is given. "within noise" marks changes that are no larger than what a figure moves within
a run.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if output != "table" && output != "json" {
				return usagef("bench compare: -o %s: want table or json", output)
			}
			a, err := readRun(args[0])
			if err != nil {
				return err
			}
			b, err := readRun(args[1])
			if err != nil {
				return err
			}
			if why := load.Differences(a, b); len(why) > 0 && !force {
				return fmt.Errorf("bench compare: these runs cannot be compared (--force does it all the same):\n  %s", strings.Join(why, "\n  "))
			} else if len(why) > 0 {
				fmt.Fprintf(e.stderr, "compared in spite of:\n  %s\n", strings.Join(why, "\n  "))
			}
			all := load.Compare(a, b)
			if output == "json" {
				return json.NewEncoder(e.stdout).Encode(all)
			}
			return load.WriteComparison(e.stdout, all)
		},
	}
	c.Flags().BoolVar(&force, "force", false, "compare runs that differ in more than the server")
	c.Flags().StringVarP(&output, "output", "o", output, "table or json")
	return c
}

func benchReportCmd(e *env) *cobra.Command {
	var html string
	c := &cobra.Command{
		Use:   "report RUN.json",
		Short: "Print a run again, or make its page",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := readRun(args[0])
			if err != nil {
				return err
			}
			if html != "" {
				return (&benchOptions{}).write(e, html, r.WriteHTML)
			}
			for _, line := range r.Lines() {
				fmt.Fprintln(e.stdout, line)
			}
			return nil
		},
	}
	c.Flags().StringVar(&html, "html", "", "write the page to this file, - for standard output")
	return c
}

// readRun reads a run's JSON.
func readRun(file string) (_ *load.Result, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r, err := load.ReadResult(io.LimitReader(f, 1<<30))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}
