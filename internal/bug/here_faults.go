//go:build faults

package bug

import (
	"os"
	"path/filepath"
)

// dir is where a file with a place's name lets it panic once.
var dir = os.Getenv("HARD_FAULTS")

// Here panics if a file of this name is in the directory $HARD_FAULTS, and removes the file.
func Here(place string) {
	if dir != "" && os.Remove(filepath.Join(dir, place)) == nil {
		panic("fault of a test: " + place)
	}
}
