package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
		Long: `compare reads what two runs wrote with --json. Runs of different machines, settings or verbs, and those that failed, were INVALID or interrupted,
say nothing about each other: it refuses them, unless --force is given. "within noise" marks changes that are no larger than what the two
differ by at equal moments.`,
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
				files, err := openOutputs(e.stdout, html)
				if err != nil {
					return fmt.Errorf("bench report: %w", err)
				}
				return errors.Join(files.write(r.WriteHTML), files.drop())
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

// An output is where one form of a result goes. A file of an earlier run stays as it is until the new one is written whole: that
// is written beside it, and takes its name.
type output struct {
	w    io.Writer // nil: this form is not wanted
	f    *os.File  // nil: w is standard output
	path string    // that f takes when it is whole; "": f is no file that could
}

type outputs []*output

// openOutputs opens the files of those names, - for stdout, or "" for none.
func openOutputs(stdout io.Writer, names ...string) (outputs, error) {
	var all outputs
	for _, name := range names {
		o, err := openOutput(stdout, name)
		if err != nil {
			return nil, errors.Join(err, all.drop())
		}
		all = append(all, o)
	}
	return all, nil
}

func openOutput(stdout io.Writer, name string) (*output, error) {
	switch name {
	case "":
		return &output{}, nil
	case "-":
		return &output{w: stdout}, nil
	}
	if at, err := filepath.EvalSymlinks(name); err == nil {
		name = at
	}
	part, flags, path := fmt.Sprintf("%s.%d.part", name, os.Getpid()), os.O_CREATE|os.O_EXCL, name
	switch is, err := os.Stat(name); {
	case err == nil && is.IsDir():
		return nil, fmt.Errorf("%s: is a directory", name)
	case err == nil && !is.Mode().IsRegular(): // a device or a pipe: nothing takes its place
		part, flags, path = name, 0, ""
	}
	f, err := os.OpenFile(part, os.O_WRONLY|flags, 0o666)
	return &output{w: f, f: f, path: path}, err
}

// write writes to each output what to of the same place does.
func (o outputs) write(to ...func(io.Writer) (int64, error)) error {
	var all []error
	for i, one := range o {
		if one.w != nil {
			all = append(all, one.write(to[i]))
		}
	}
	return errors.Join(all...)
}

func (o *output) write(to func(io.Writer) (int64, error)) error {
	_, err := to(o.w)
	if err != nil || o.path == "" {
		return err
	}
	if err := o.f.Close(); err != nil {
		return err
	}
	if err := os.Rename(o.f.Name(), o.path); err != nil {
		return err
	}
	o.f = nil
	return nil
}

// drop leaves nothing of what was not written.
func (o outputs) drop() error {
	var all []error
	for _, one := range o {
		if one.f == nil {
			continue
		}
		if err := one.f.Close(); !errors.Is(err, os.ErrClosed) {
			all = append(all, err)
		}
		if one.path != "" {
			all = append(all, os.Remove(one.f.Name()))
		}
	}
	return errors.Join(all...)
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
