package secure_test
import ("os";"runtime/pprof";"runtime")
func init(){ if os.Getenv("PROF")!="" { runtime.MemProfileRate=1; profHook=func(){ f,_:=os.Create(os.Getenv("PROF")); pprof.WriteHeapProfile(f); f.Close() } } }
var profHook=func(){}
