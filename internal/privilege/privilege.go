// Package privilege gives up what root has and this program does not need. What is left is one
// capability, CAP_NET_BIND_SERVICE, so that a reload may still add a listener on port 53; children
// get not even that.
//
// Everything here holds for all threads of the process, those to come included. It is called
// before there are files of the new user's, and it is not for restoring anything: there is no way
// back.
package privilege

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// User is whom to become.
type User struct {
	Name     string // as asked for
	UID, GID int
}

// Root tells whether nothing is to be given up.
func (u User) Root() bool { return u.UID == 0 }

// Lookup finds a user by NAME or UID, the group being the user's own, or by either with :GROUP or
// :GID behind it.
func Lookup(text string) (User, error) {
	name, group, hasGroup := strings.Cut(text, ":")
	u := User{Name: text, UID: -1, GID: -1}
	found, err := user.Lookup(name)
	if err != nil {
		found, err = user.LookupId(name)
	}
	if err == nil {
		u.UID, err = strconv.Atoi(found.Uid)
		if err == nil {
			u.GID, err = strconv.Atoi(found.Gid)
		}
	} else if n, nerr := number(name); nerr == nil && hasGroup {
		u.UID, err = n, nil // an unknown UID needs no entry, if its group is given
	}
	if err != nil {
		return u, fmt.Errorf("user %q: %w", name, err)
	}
	if !hasGroup {
		return u, nil
	}
	if u.GID, err = number(group); err == nil {
		return u, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return u, fmt.Errorf("group %q: %w", group, err)
	}
	u.GID, err = strconv.Atoi(g.Gid)
	return u, err
}

func number(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n), err
}

// Drop becomes u, without supplementary groups, with CAP_NET_BIND_SERVICE alone where we have it, and without a
// way to ever get more (no_new_privs, and the bounding set). An error leaves the process in an
// unknown state: it should end.
func Drop(u User) error {
	if u.Root() {
		return errors.New("root is no user to become")
	}
	had := cap.GetProc()
	keepNice()
	can := func(v cap.Value) bool { ok, err := had.GetFlag(cap.Effective, v); return err == nil && ok }
	var bind bool
	if b, err := had.GetFlag(cap.Permitted, cap.NET_BIND_SERVICE); err == nil {
		bind = b
	}
	if can(cap.SETPCAP) { // some containers' root lacks it; no_new_privs has the same effect on us
		if err := dropBound(); err != nil {
			return fmt.Errorf("bounding set: %w", err)
		}
	}
	if err := cap.SetGroups(u.GID); err != nil {
		return fmt.Errorf("groups: %w", err)
	}
	if err := cap.SetUID(u.UID); err != nil {
		return fmt.Errorf("uid %d: %w", u.UID, err)
	}
	if err := keepBind(bind); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	// The change of user has made /proc/self root's. It is ours again with this; nobody gains by it:
	// to look into us takes our user and all of our capabilities.
	return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
}

// niceBelow is how far a thread of ours may still go below today's nice value: as the listeners do
// between the rare queries of a host.
const niceBelow = 10

// keepNice lets threads lower their nice value without a capability. Who may not raise limits goes
// without: then queries have to wait for other work now and then.
func keepNice() {
	prio, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 - nice, as the system call gives it
	if err != nil {
		return
	}
	most := uint64(min(prio+niceBelow, 40))
	_ = unix.Setrlimit(unix.RLIMIT_NICE, &unix.Rlimit{Cur: most, Max: most})
}

// dropBound takes everything but CAP_NET_BIND_SERVICE out of the bounding set.
func dropBound() error {
	var gone []cap.Value
	for v := range cap.MaxBits() {
		if v != cap.NET_BIND_SERVICE {
			gone = append(gone, v)
		}
	}
	return cap.DropBound(gone...)
}

// keepBind leaves no capability but CAP_NET_BIND_SERVICE, and none at all to children.
func keepBind(bind bool) error {
	set := cap.NewSet()
	if bind {
		for _, f := range []cap.Flag{cap.Permitted, cap.Effective} {
			if err := set.SetFlag(f, true, cap.NET_BIND_SERVICE); err != nil {
				return err
			}
		}
	}
	return set.SetProc()
}

// KeepFromChildren takes back what a service manager has given to all our children as well: a
// capability that is ambient is inherited by checks and hooks.
func KeepFromChildren() error {
	if on, err := cap.GetAmbient(cap.NET_BIND_SERVICE); err != nil || !on {
		return nil // nothing to do; a kernel without ambient capabilities has none
	}
	return cap.ResetAmbient()
}

// Readable tells whether a file can be read; after Drop, what a reload will find.
func Readable(path string) bool { return unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK, 0) == nil }

// Writable tells whether files can be made in a directory.
func Writable(dir string) bool {
	return unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, 0) == nil
}

// Own gives what is at path to u, if it is a plain file of root's with one name, or a directory of
// root's that is closed to others and holds nothing but files that ours tells to be ours. Anything else it leaves alone:
// this is done with root's rights in places that others may write to.
func (u User) Own(path string, ours func(name string) bool) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	switch {
	case st.Uid != 0:
		return nil
	case st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1:
	case st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Mode&0o007 == 0 && onlyOurs(path, ours):
	default:
		return nil
	}
	if err := unix.Fchownat(fd, "", u.UID, u.GID, unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "chown", Path: path, Err: err}
	}
	return nil
}

func onlyOurs(dir string, ours func(string) bool) bool {
	list, err := os.ReadDir(dir)
	if err != nil || ours == nil {
		return false
	}
	for _, e := range list {
		if !ours(e.Name()) {
			return false
		}
	}
	return true
}

// MakeDir makes a directory of u's, with its parents of root's, where there is none.
func (u User) MakeDir(path string, mode os.FileMode) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode.Perm()); err != nil {
		return err
	}
	return errors.Join(os.Lchown(path, u.UID, u.GID), os.Chmod(path, mode))
}
