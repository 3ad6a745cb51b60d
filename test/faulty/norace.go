//go:build !race

package faulty

// raceEnabled: the tests run under the race detector, and so does the program.
const raceEnabled = false
