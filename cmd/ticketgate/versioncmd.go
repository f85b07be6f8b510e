package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is the release. Packages set it with -ldflags "-X main.version=...".
var version = "0.1.0"

func init() { commands = append(commands, versionCmd) }

func versionCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the Go version and the commit",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(e.stdout, "ticketgate %s\ngo         %s %s/%s\ncommit     %s\n",
				version, runtime.Version(), runtime.GOOS, runtime.GOARCH, commit(debug.ReadBuildInfo()))
			return err
		},
	}
}

// commit is the revision that the binary was built from, "unknown" if the build did not record it.
func commit(info *debug.BuildInfo, ok bool) string {
	revision, modified := "unknown", ""
	if !ok {
		return revision
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = " (modified)"
		}
	}
	return revision + modified
}
