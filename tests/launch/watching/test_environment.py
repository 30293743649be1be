from cardamage.launch.watching.client import clean

SHELL = {"PATH": "/bin", "HOME": "/root", "LOCAL_SCRATCH": "/tmp", "OMP_NUM_THREADS": "1"}
SITE = {"SLURM_CONF": "/etc/slurm.conf", "SLURM_CLUSTERS": "big"}


def test_what_a_person_set_stays():
    own = {"SBATCH_ACCOUNT": "thesis", "SBATCH_PARTITION": "gpu", "CUDA_VISIBLE_DEVICES": "1"}
    assert clean({**SHELL, **SITE, **own}) == {**SHELL, **SITE, **own}


def test_nothing_of_an_allocation_stays():
    allocation = {
        "SLURM_JOB_ID": "5",
        "SLURM_MEM_PER_CPU": "100",
        "SLURM_PROCID": "0",
        "SBATCH_PARTITION": "gpu",
        "PMI_RANK": "0",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    assert clean({**SHELL, **SITE, **allocation}) == {**SHELL, **SITE}


def test_ranks_of_another_launcher_go():
    ranks = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "n0"}
    others = {"TORCHELASTIC_RUN_ID": "1", "ACCELERATE_USE_CPU": "true", "SBATCH_TIMELIMIT": "5"}
    assert clean({**SHELL, **ranks, **others}) == SHELL
